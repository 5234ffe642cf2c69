"""The widgets of the page, as its tabs use them: `button("Write")`, `slider(…)`, and `bind(event, handler, …)`.

Gradio does not validate values here (preprocess=False): requests.py does, with sentences as errors. app.py sets
Gradio's environment variables before this module is imported.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gradio as gr

from tinygpt.config import SAMPLING
from tinygpt.web.requests import DEFAULTS, LABELS, MAX_NEW_TOKENS, SLIDERS
from tinygpt.web.service import MAX_CONCURRENT


def sampling_settings(tab: str) -> list[Any]:
    """The column of a tab's settings, in the order of requests.LABELS. tab: in lower case."""
    with gr.Column(scale=2, min_width=250, elem_classes="settings", elem_id="settings" if tab == "write" else None):
        html("<h2>Sampling</h2>")
        sliders = [slider(name, *ends, SAMPLING[name].help) for name, ends in SLIDERS.items()]
        sliders.append(slider("max_new_tokens", 1, MAX_NEW_TOKENS, 1, "The limit for one answer."))
        info = "The same seed gives the same text."
        seed = gr.Number(DEFAULTS["seed"], label=LABELS["seed"], info=info, precision=0)
        shade = gr.Checkbox(label="Shade tokens by surprisal")
    toggle = f"on => {{ document.body.classList.toggle('shaded-{tab}', on); return []; }}"
    shade.input(None, [shade], js=toggle)
    return [*sliders, seed]


def set_in_browser(event: Any, target: gr.HTML, value: str = "") -> None:
    """Set a component as soon as an event makes its content stale, without waiting for the server."""
    event(None, [], [target], js=f"() => {json.dumps(value)}", show_progress="hidden")


def render(*components: Any) -> None:
    """Place components that were created with render=False."""
    for component in components:
        component.render()


def slider(name: str, lowest: float, highest: float, step: float, info: str) -> gr.Slider:
    return gr.Slider(lowest, highest, DEFAULTS[name], step=step, label=LABELS[name], info=info, buttons=[])


def textbox(label: str, max_lines: int, name: str) -> gr.Textbox:
    """A box that starts with one line, because in a taller one Gradio's Enter key does not submit."""
    return gr.Textbox(
        "", label=label, lines=1, max_lines=max_lines, elem_id=name, elem_classes="text-box", render=False
    )


def html(value: str, name: str = "", render: bool = True) -> gr.HTML:
    return gr.HTML(value, elem_id=name or None, js_on_load=None, apply_default_css=False, render=render)


def button(name: str, min_width: int = 84, **options: Any) -> gr.Button:
    return gr.Button(name, size="md", scale=0, min_width=min_width, render=False, **options)


def bind(
    event: Any,
    handler: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    needs_model: bool = False,
    js: str | None = None,
    name: str | None = None,
) -> Any:
    """Bind a handler to an event, or to a list of events of which only the latest is handled.

    needs_model: wait for one of the MAX_CONCURRENT places; other events are handled at once. js: a function that
    changes the values of the inputs in the browser. name: of the event, instead of the handler's.
    """
    queue: Any = {"concurrency_limit": MAX_CONCURRENT, "concurrency_id": "model"} if needs_model else {"queue": False}
    latest: Any = {"trigger_mode": "always_last"} if needs_model else {}
    add = partial(gr.on, event, **latest) if isinstance(event, list) else event
    return add(
        handler,
        list(inputs),
        list(outputs),
        preprocess=False,
        show_progress="hidden",
        api_visibility="private",
        api_name=name,
        js=js,
        **queue,
    )
