"""`tinygpt chat`: the loop that reads lines, executes commands and streams answers. The conversation itself is in
session.py.

`Repl(chat, ask, out, notes).run()`. Generated text goes to standard output and messages to standard error, so that
input and output can be piped. Generated text is made safe for a terminal; Ctrl-C ends the answer, not the program. Left
out: a history on disk.
"""

import io
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from tinygpt.chat.session import SETTINGS, Chat, ChatTurn, MessageChat, style
from tinygpt.checkpoints.hf_names import family
from tinygpt.console import styled
from tinygpt.errors import explain
from tinygpt.generation.generate import for_terminal
from tinygpt.generation.windows import window_start
from tinygpt.model.gpt import GPT, count_parameters

COMMANDS = """\
/temperature 0.8     how random: 0 always the likeliest token, 1 unchanged
/top-k 20            only the k likeliest tokens; 0: all
/top-p 0.95          only the likeliest, with this total probability; 1: all
/min-p 0.05          no token less likely than this times the likeliest; 0: all
/repetition-penalty 1.1  above 1: tokens of the text so far are less likely
/length 200          how many tokens an answer may have
/seed 7              the same seed, text and settings give the same answer
{}
/retry  /undo  /clear    another answer; take back the last turn; begin again
/show                the settings, and the text so far
/save FILE           each turn with its settings, seed and hashes, as JSON lines
/quit                or Ctrl-D. Ctrl-C stops an answer and keeps its beginning"""
HELP = """\
What you write is appended to the text so far, and the model continues it; begin
with a space where you want one. \\n is a new line, and so is a \\ at the end of
a line. Enter alone lets the model continue. // begins a text with a /.

""" + COMMANDS.format("""\
/style plain         your text as it is; or
/style play JULIET   your words are a speech by YOU, JULIET speaks next (with no
                     name, the model chooses); play JULIET, ROMEO: you are ROMEO
/style Q: {}\\nA:     or a template, {} being what you write""")
MESSAGES_HELP = """\
What you write is a message, and the model answers it. It sees as many of the
last turns as fit into its context. \\n is a new line, and so is a \\ at the end
of a line. // begins a message with a /.

""" + COMMANDS.format("/system You are JULIET.   set the system message; /system alone removes it")
EMPTY = "The text is empty."
PLAIN_COMMANDS = ("help", "style", "system", "retry", "undo", "clear", "show", "save", "save!", "quit")


class Repl:
    """The read-eval-print loop of a chat.

    ask(prompt): reads a line; raises EOFError after the last. Text goes to `out`, messages to `notes`.
    """

    def __init__(self, chat: Chat, ask: Callable[[str], str], out: TextIO, notes: TextIO) -> None:
        self.chat, self.ask, self.out, self.notes = chat, ask, out, notes
        self.warned = False  # that the text is longer than the context

    def run(self) -> None:
        """Run until /quit or the end of the input. Errors are printed; Ctrl-C prints how to leave."""
        running = True
        while running:
            try:
                running = self.handle(self.read())
            except EOFError:
                return
            except KeyboardInterrupt:
                self.note("\n/quit or Ctrl-D leaves.")
            except ValueError as problem:
                self.note(str(problem))

    def read(self) -> str:
        """A line, joined with the next one while it ends with \\."""
        line = self.ask("> ")
        while line.endswith("\\"):
            line = line[:-1]
            try:
                line += "\n" + self.ask("… ")
            except EOFError:  # no line follows
                break
        return line

    def handle(self, line: str) -> bool:
        """Execute a command, or let the model answer; False after /quit."""
        if line.startswith("/") and not line.startswith("//"):
            name, _, value = line[1:].partition(" ")
            return name != "quit" and self.execute(name, value.strip())
        words = line.removeprefix("/" if line.startswith("//") else "").replace("\\n", "\n")
        if isinstance(self.chat, MessageChat):
            self.answer_message(words)
        else:
            self.answer(self.chat.say(words))
        return True

    def answer_message(self, words: str) -> None:
        """Answer a message; an empty or refused one gives an empty line, so that piped lines keep their places."""
        try:
            if words.strip():
                self.answer(self.chat.say(words))
            else:
                self.write("\n")
        except ValueError:
            self.write("\n")
            raise

    def execute(self, name: str, value: str) -> bool:
        """Execute a command; returns True. ValueError for an unknown command or a wrong value."""
        chat = self.chat
        match name:
            case "help":
                self.write((MESSAGES_HELP if isinstance(chat, MessageChat) else HELP) + "\n")
            case "system":
                if not isinstance(chat, MessageChat):
                    raise ValueError("This model completes text; it takes no system message. /style is its template.")
                chat.system = value.replace("\\n", "\n").strip()
                self.note(f"system {value}" if chat.system else "No system message.")
            case "style" if isinstance(chat, MessageChat):
                raise ValueError("This model answers messages; it needs no style. /system says who it is.")
            case "style":
                chat.style = style(value.replace("\\n", "\n"))
                self.note(f"style {value}")
            case "retry":
                self.answer(chat.retry())
            case "undo":
                chat.undo()
                self.note(self.undone())
            case "clear":
                chat.clear()
                self.warned = False
                self.note("The conversation is empty." if isinstance(chat, MessageChat) else EMPTY)
            case "show":
                self.show()
            case "save" | "save!":
                self.save(value, overwrite=name == "save!")
            case _ if name in SETTINGS:
                chat.set(name, value)
                self.note(f"{name} {value}")
            case _:
                known = ", ".join(f"/{one}" for one in (*SETTINGS, *PLAIN_COMMANDS))
                raise ValueError(f"/{name} is no command; there are {known}. // begins a text with a /.")
        return True

    def answer(self, pieces: Generator[str]) -> None:
        """Stream an answer; Ctrl-C ends it."""
        with deferred_interrupt() as interrupted:
            last = ""
            for piece in pieces:
                self.write(piece)
                last = piece or last
                if interrupted():
                    break
            pieces.close()  # settles the turn: an empty retry restores the answer before
        self.write("" if last.endswith("\n") else "\n")
        turn, context = self.chat.turns[-1], self.chat.model.config.context_length
        if isinstance(self.chat, MessageChat):
            self.note_messages(turn)
            return
        if turn.ended == "interrupted":
            self.note("Stopped there; it is kept. /undo removes it, Enter continues it.")
        if turn.ended == "end of text":
            self.note("The model ended its text here. /clear begins a new one.")
        if not self.warned and len(self.chat.tokenizer.encode(self.chat.text)) > context:
            self.warned = True
            self.note(
                f"The text is longer now than the {context} tokens that this model sees; it ignores the beginning."
            )

    def undone(self) -> str:
        """What is left after a turn was taken back."""
        if isinstance(self.chat, MessageChat):
            return "The last message and its answer are removed."
        return f"The text now ends with {self.chat.text[-60:]!r}." if self.chat.text else EMPTY

    def note_messages(self, turn: ChatTurn) -> None:
        """What there is to say about an answer, if anything."""
        if turn.ended == "interrupted":
            self.note("Stopped there; it is kept. /undo removes it, /retry answers again.")
        elif turn.ended == "length":
            self.note("The answer was cut off there. /length allows longer ones, as far as the context does.")
        if turn.left_out and not self.warned:
            self.warned = True
            self.note(
                f"The conversation is longer now than the {self.chat.model.config.context_length} tokens that this "
                "model sees; the oldest turns are no longer in the prompt."
            )

    def show(self) -> None:
        chat = self.chat
        if isinstance(chat, MessageChat):
            self.note(f"{chat.settings()}\nsystem {chat.system}")
            self.write(chat.text)
            return
        count = len(chat.tokenizer.encode(chat.text))
        seen = count - window_start(count, chat.model.config.context_length)
        self.note(f"{chat.settings()}\nstyle {chat.style.name}; the model sees {seen} of the {count} tokens so far:")
        self.write(chat.text + "\n")

    def save(self, value: str, overwrite: bool) -> None:
        if not value:
            raise ValueError("/save needs the name of a file, such as /save chat.jsonl.")
        try:
            file = Path(value).expanduser()
            self.chat.save(file, overwrite)
        except OSError as problem:
            raise ValueError(explain(problem)) from problem
        except RuntimeError:  # of expanduser
            raise ValueError(f"The home folder of {value} is unknown; name another file.") from None
        self.note(f"{len(self.chat.turns)} turns in {file}; `tinygpt info {file}` follows their hashes.")

    def write(self, text: str) -> None:
        self.out.write(for_terminal(text, self.out))
        self.out.flush()

    def note(self, text: str) -> None:
        styled(self.notes).print(for_terminal(text, self.notes), style="dim", soft_wrap=True)
        self.notes.flush()


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Defer Ctrl-C: yields a function that says whether it was pressed. A second Ctrl-C raises KeyboardInterrupt."""
    handler = signal.getsignal(signal.SIGINT)
    received: list[int] = []

    def on_signal(number: int, _: FrameType | None) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, handler)

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGINT, handler)


def reader(stdin: TextIO, out: TextIO, notes: TextIO) -> Callable[[str], str]:
    """A function that reads a line: in a terminal with editing, history and completion of commands.

    The history ends with the chat. Text pasted into a terminal is one line that may contain newlines.
    """
    if stdin.isatty() and out.isatty() and not styled(out).is_dumb_terminal:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter

        commands = WordCompleter([f"/{name}" for name in (*SETTINGS, *PLAIN_COMMANDS)], sentence=True)
        return PromptSession[str](completer=commands, complete_while_typing=False).prompt
    if isinstance(stdin, io.TextIOWrapper):
        stdin.reconfigure(errors="replace")  # bytes that are not UTF-8 must not end the chat

    def read(prompt: str) -> str:
        if stdin.isatty():
            notes.write(prompt)
            notes.flush()
        line = stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")

    return read


def greeting(model: GPT, name: str, answers: bool = False) -> str:
    """Two lines: which model it is, and what it can do."""
    what = (
        "It answers messages. /system You are JULIET. says who it is."
        if answers
        else "A base model completes text; it does not answer. Write a beginning; the model continues it."
    )
    return f"{name}: {family(model.config)}, {count_parameters(model):,} parameters. /help lists the commands.\n{what}"
