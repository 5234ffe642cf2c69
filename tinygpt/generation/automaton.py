"""A suffix automaton: finds which parts of some texts occur in another text, in one pass over it.

`automaton = Automaton(texts)`, then `automaton.longest(passages, least)` → the longest part of each text that stands in
a passage. The automaton is the smallest that reads every part of the texts (Blumer et al. 1985, "The smallest automaton
recognizing the subwords of a text"); it takes about 300 bytes a character, and its time grows with the characters read,
however often they repeat themselves. Left out: which part of a text it was.
"""

from collections.abc import Iterable, Sequence


class Automaton:
    """A state stands for parts of the texts that end at the same places; the start, 0, for the empty one."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._next: list[dict[str, int]] = [{}]  # of each state: the state after one more character
        self._shorter = [-1]  # the state of the longest ending that also stands elsewhere
        self._size = [0]  # characters of its longest part
        self._texts = [0]  # which texts have its parts: a bit for each
        for number, text in enumerate(texts):
            state = 0
            for character in text:
                state = self._extend(state, character)
                self._texts[state] |= 1 << number
        for state in sorted(range(1, len(self._size)), key=self._size.__getitem__, reverse=True):
            self._texts[self._shorter[state]] |= self._texts[state]

    def longest(self, passages: Iterable[str], least: float) -> dict[int, str]:
        """Number of a text → its longest part that stands in a passage, if longer than `least`; of several the first
        in the order of the passages.
        """
        read = "".join(passages := list(passages))
        found = self._matches(passages, least)
        waiting, parts = self._texts[0], {}
        for state in sorted(found, key=lambda state: (-found[state][0], found[state][1])):
            size, end, _ = found[state]
            here = self._texts[state] & waiting
            waiting &= ~here
            while here:
                number = here.bit_length() - 1
                here ^= 1 << number
                parts[number] = read[end - size : end]
        return parts

    def _matches(self, passages: Iterable[str], least: float) -> dict[int, tuple[int, int, int]]:
        """State → the longest match that ended in it, beyond `least` characters: its size, where the first so long
        ended, and where the first of any size did; counted over all passages together.
        """
        found: dict[int, tuple[int, int, int]] = {}
        following, read = self._next, 0
        for passage in passages:
            state = size = 0
            for end, character in enumerate(passage, read + 1):
                while state and character not in following[state]:
                    state = self._shorter[state]
                    size = self._size[state]
                if character in following[state]:
                    state, size = following[state][character], size + 1
                if size > least and size > (known := found.get(state, (0, end, end)))[0]:
                    found[state] = (size, end, known[2])
            read += len(passage)
        self._pass_on(found, least)
        return found

    def _pass_on(self, found: dict[int, tuple[int, int, int]], least: float) -> None:
        """What ended in a state also ended in those of its endings, in their full size."""
        waiting = set(found)
        for state in found:
            while (state := self._shorter[state]) > 0 and self._size[state] > least and state not in waiting:
                waiting.add(state)
        for state in sorted(waiting, key=self._size.__getitem__, reverse=True):
            shorter, first = self._shorter[state], found[state][2]
            if (size := self._size[shorter]) > least:
                known = found.get(shorter, (0, first, first))
                at = min(first, known[1]) if known[0] == size else first
                found[shorter] = (size, at, min(first, known[2]))

    def _extend(self, state: int, character: str) -> int:
        """The state of one more character after the whole of what was read in `state`."""
        if character in self._next[state]:
            return self._exact(state, character)
        new = self._add({}, self._size[state] + 1, 0)
        while state >= 0 and character not in self._next[state]:
            self._next[state][character] = new
            state = self._shorter[state]
        if state >= 0:
            self._shorter[new] = self._exact(state, character)
        return new

    def _exact(self, state: int, character: str) -> int:
        """The state after `character` with no longer part than that; split off where there are longer ones."""
        whole = self._next[state][character]
        size = self._size[state] + 1
        if self._size[whole] == size:
            return whole
        part = self._add(dict(self._next[whole]), size, self._shorter[whole])
        self._shorter[whole] = part
        while state >= 0 and self._next[state].get(character) == whole:
            self._next[state][character] = part
            state = self._shorter[state]
        return part

    def _add(self, following: dict[str, int], size: int, shorter: int) -> int:
        self._next.append(following)
        self._size.append(size)
        self._shorter.append(shorter)
        self._texts.append(0)
        return len(self._size) - 1
