"""`tinygpt chat`: the loop that reads lines, obeys commands and streams answers. The conversation itself is
session.py's.

`Repl(chat, ask, out, notes).run()`. What the model writes goes to standard output and all that is said about it
to standard error, so that lines can be piped in and text out. Model text is made harmless for a terminal; Ctrl-C ends
an answer and not the program. Left out: a history on the disk.
"""

import io
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from tinygpt.chat.session import SETTINGS, Chat, style
from tinygpt.checkpoints.hf_names import family
from tinygpt.console import styled
from tinygpt.errors import explain
from tinygpt.generation.generate import for_terminal
from tinygpt.generation.windows import window_start
from tinygpt.model.gpt import GPT, count_parameters

HELP = """\
What you write is put right after the text so far, and the model goes on; begin
with a space where you want one. \\n is a new line, and so is a \\ at the end of a
line. Enter alone lets the model go on. // begins a text with a /.

/temperature 0.8     how freely it chooses: 0 always the likeliest, 1 as it is
/top-k 20            only the k likeliest tokens; 0 all
/top-p 0.95          only the likeliest that hold this much probability; 1 all
/min-p 0.05          none less likely than this share of the likeliest; 0 all
/repetition-penalty 1.1  above 1: what was written already is less likely
/length 200          how many tokens an answer may have
/seed 7              the same seed, text and settings give the same answer
/style plain         your text as it is; or
/style play JULIET   your words are a speech of YOU, JULIET speaks next (with no
                     name, the model chooses who); play JULIET, ROMEO: you are ROMEO
/style Q: {}\\nA:     or a template, {} being what you write
/retry  /undo  /clear    another answer; take back the last turn; begin again
/show                the settings, and the text so far
/save FILE           every turn with its settings, seed and hashes, as JSON lines
/quit                or Ctrl-D. Ctrl-C stops an answer, and keeps what is there"""
EMPTY = "The text is empty."
PLAIN_COMMANDS = ("help", "style", "retry", "undo", "clear", "show", "save", "save!", "quit")


class Repl:
    """A chat, and the terminal in which it is held.

    ask(prompt): reads a line; raises EOFError after the last. Text goes to `out`, all that is said about it to `notes`.
    """

    def __init__(self, chat: Chat, ask: Callable[[str], str], out: TextIO, notes: TextIO) -> None:
        self.chat, self.ask, self.out, self.notes = chat, ask, out, notes
        self.told = False  # that the text has outgrown the context

    def run(self) -> None:
        """Until /quit, or the end of the input. A mistake is answered with a sentence; Ctrl-C says how to leave."""
        going = True
        while going:
            try:
                going = self.turn(self.entry())
            except EOFError:
                return
            except KeyboardInterrupt:
                self.note("\n/quit or Ctrl-D leaves.")
            except ValueError as problem:
                self.note(str(problem))

    def entry(self) -> str:
        """A line, and those that a \\ at its end joins to it."""
        line = self.ask("> ")
        while line.endswith("\\"):
            line = line[:-1]
            try:
                line += "\n" + self.ask("… ")
            except EOFError:  # there is none to join: what there is counts
                break
        return line

    def turn(self, line: str) -> bool:
        """Obey a command, or let the model answer; False where the conversation is over."""
        if line.startswith("/") and not line.startswith("//"):
            name, _, value = line[1:].partition(" ")
            return name != "quit" and self.obey(name, value.strip())
        self.answer(self.chat.say(line.removeprefix("/" if line.startswith("//") else "").replace("\\n", "\n")))
        return True

    def obey(self, name: str, value: str) -> bool:
        """Do what a command says; True. ValueError where there is no such command, or it wants something else."""
        chat = self.chat
        match name:
            case "help":
                self.write(HELP + "\n")
            case "style":
                chat.style = style(value.replace("\\n", "\n"))
                self.note(f"style {value}")
            case "retry":
                self.answer(chat.retry())
            case "undo":
                chat.undo()
                self.note(f"The text now ends with {chat.text[-60:]!r}." if chat.text else EMPTY)
            case "clear":
                chat.clear()
                self.note(EMPTY)
            case "show":
                self.show()
            case "save" | "save!":
                self.save(value, replacing=name == "save!")
            case _ if name in SETTINGS:
                chat.set(name, value)
                self.note(f"{name} {value}")
            case _:
                known = ", ".join(f"/{one}" for one in (*SETTINGS, *PLAIN_COMMANDS))
                raise ValueError(f"/{name} is no command; there are {known}. // begins a text with a /.")
        return True

    def answer(self, pieces: Generator[str]) -> None:
        """Show an answer as it comes; Ctrl-C ends it."""
        with stoppable() as stopped:
            last = ""
            for piece in pieces:
                self.write(piece)
                last = piece or last
                if stopped():
                    break
            pieces.close()  # a retry of which nothing came gives its place back
        self.write("" if last.endswith("\n") else "\n")
        turn, context = self.chat.turns[-1], self.chat.model.config.context_length
        if turn.ended == "interrupted":
            self.note("Stopped there; it is kept. /undo takes it back, Enter goes on.")
        if turn.ended == "end of text":
            self.note("The model ended its text here. /clear begins a new one.")
        if not self.told and len(self.chat.tokenizer.encode(self.chat.text)) > context:
            self.told = True
            self.note(
                f"The text is longer now than the {context} tokens that this model sees: it forgets the beginning."
            )

    def show(self) -> None:
        chat = self.chat
        count = len(chat.tokenizer.encode(chat.text))
        seen = count - window_start(count, chat.model.config.context_length)
        self.note(f"{chat.settings()}\nstyle {chat.style.name}; the model sees {seen} of the {count} tokens so far:")
        self.write(chat.text + "\n")

    def save(self, value: str, replacing: bool) -> None:
        if not value:
            raise ValueError("/save wants the name of a file, such as /save chat.jsonl.")
        try:
            file = Path(value).expanduser()
            self.chat.save(file, replacing)
        except OSError as problem:
            raise ValueError(explain(problem)) from problem
        except RuntimeError:  # of expanduser
            raise ValueError(f"Nobody here has the home folder of {value}; name another file.") from None
        self.note(f"{len(self.chat.turns)} turns in {file}; `tinygpt info {file}` follows their hashes.")

    def write(self, text: str) -> None:
        self.out.write(for_terminal(text, self.out))
        self.out.flush()

    def note(self, text: str) -> None:
        styled(self.notes).print(for_terminal(text, self.notes), style="dim", soft_wrap=True)
        self.notes.flush()


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C into a question, asked between two pieces of text; a second one, meanwhile, is an interrupt."""
    before = signal.getsignal(signal.SIGINT)
    asked: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def reader(stdin: TextIO, out: TextIO, notes: TextIO) -> Callable[[str], str]:
    """A function that reads a line: in a terminal with editing, history and completion of commands, else plainly.

    The history lasts as long as the chat. A text pasted into a terminal is one line, with its newlines.
    """
    if stdin.isatty() and out.isatty() and not styled(out).is_dumb_terminal:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter

        commands = WordCompleter([f"/{name}" for name in (*SETTINGS, *PLAIN_COMMANDS)], sentence=True)
        return PromptSession[str](completer=commands, complete_while_typing=False).prompt
    if isinstance(stdin, io.TextIOWrapper):
        stdin.reconfigure(errors="replace")  # a line that is not UTF-8 is no reason to lose those after it

    def read(prompt: str) -> str:
        if stdin.isatty():
            notes.write(prompt)
            notes.flush()
        line = stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")

    return read


def greeting(model: GPT, name: str) -> str:
    """Two lines: who is there, and what it can do."""
    return (
        f"{name}: {family(model.config)}, {count_parameters(model):,} parameters. /help lists the commands.\n"
        "A base model completes text; it does not answer. Write a beginning: it goes on."
    )
