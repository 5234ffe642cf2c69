"""A suffix automaton of some texts: finds their substrings in other text, in one pass over it.

`automaton = SuffixAutomaton(texts)`, then `automaton.longest(passages, longer_than)` → the longest substring of each
text that occurs in a passage. It is the smallest automaton that accepts every substring of the texts (Blumer et al.
1985, "The smallest automaton recognizing the subwords of a text"). It takes about 300 bytes a character; time is linear
in the characters read, for repetitive text, too. Left out: where in its text a substring occurs.
"""

from collections.abc import Iterable, Sequence


class SuffixAutomaton:
    """Each state stands for the substrings that end at the same set of positions; state 0 for the empty string."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._next: list[dict[str, int]] = [{}]  # per state: character → next state
        self._link = [-1]  # suffix link: the state of the longest suffix that also ends elsewhere
        self._length = [0]  # of the state's longest substring
        self._texts = [0]  # bit set of the texts that contain the state's substrings
        for number, text in enumerate(texts):
            state = 0
            for character in text:
                state = self._extend(state, character)
                self._texts[state] |= 1 << number
        for state in sorted(range(1, len(self._length)), key=self._length.__getitem__, reverse=True):
            self._texts[self._link[state]] |= self._texts[state]

    def longest(self, passages: Iterable[str], longer_than: float) -> dict[int, str]:
        """Text number → its longest substring that occurs in a passage, if it has more than `longer_than` characters.

        Of several, the one that occurs first, in the order of the passages.
        """
        joined = "".join(passages := list(passages))
        matches = self._matches(passages, longer_than)
        remaining, longest = self._texts[0], {}
        for state in sorted(matches, key=lambda state: (-matches[state][0], matches[state][1])):
            length, end, _ = matches[state]
            texts = self._texts[state] & remaining
            remaining &= ~texts
            while texts:
                number = texts.bit_length() - 1
                texts ^= 1 << number
                longest[number] = joined[end - length : end]
        return longest

    def _matches(self, passages: Iterable[str], longer_than: float) -> dict[int, tuple[int, int, int]]:
        """State → its longest match of more than `longer_than` characters: length, the end of its first occurrence, and
        the end of the first match of any such length. Ends are positions in all passages joined.
        """
        matches: dict[int, tuple[int, int, int]] = {}
        transitions, offset = self._next, 0
        for passage in passages:
            state = length = 0
            for end, character in enumerate(passage, offset + 1):
                while state and character not in transitions[state]:
                    state = self._link[state]
                    length = self._length[state]
                if character in transitions[state]:
                    state, length = transitions[state][character], length + 1
                if length > longer_than and length > (known := matches.get(state, (0, end, end)))[0]:
                    matches[state] = (length, end, known[2])
            offset += len(passage)
        self._propagate(matches, longer_than)
        return matches

    def _propagate(self, matches: dict[int, tuple[int, int, int]], longer_than: float) -> None:
        """Follow the suffix links: where a state matches, each of its suffixes matches in full length."""
        reached = set(matches)
        for state in matches:
            while (state := self._link[state]) > 0 and self._length[state] > longer_than and state not in reached:
                reached.add(state)
        for state in sorted(reached, key=self._length.__getitem__, reverse=True):
            suffix, first = self._link[state], matches[state][2]
            if (length := self._length[suffix]) > longer_than:
                known = matches.get(suffix, (0, first, first))
                end = min(first, known[1]) if known[0] == length else first
                matches[suffix] = (length, end, min(first, known[2]))

    def _extend(self, state: int, character: str) -> int:
        """Append a character to the text read so far, whose state is `state`; returns the state of the longer text."""
        if character in self._next[state]:
            return self._successor(state, character)
        new = self._add_state({}, self._length[state] + 1, 0)
        while state >= 0 and character not in self._next[state]:
            self._next[state][character] = new
            state = self._link[state]
        if state >= 0:
            self._link[new] = self._successor(state, character)
        return new

    def _successor(self, state: int, character: str) -> int:
        """The state after `character` whose longest substring is one character longer than that of `state`.

        A state with longer substrings is split: a clone takes the shorter ones.
        """
        target = self._next[state][character]
        length = self._length[state] + 1
        if self._length[target] == length:
            return target
        clone = self._add_state(dict(self._next[target]), length, self._link[target])
        self._link[target] = clone
        while state >= 0 and self._next[state].get(character) == target:
            self._next[state][character] = clone
            state = self._link[state]
        return clone

    def _add_state(self, transitions: dict[str, int], length: int, link: int) -> int:
        self._next.append(transitions)
        self._length.append(length)
        self._link.append(link)
        self._texts.append(0)
        return len(self._length) - 1
