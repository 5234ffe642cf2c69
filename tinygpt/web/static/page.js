// Token details by pointing, clicking and arrow keys; the Enter key; copying; scrolling.
// Texts become textContent, never HTML.
(() => {
  const percent = (p) => {
    if (p >= 0.9995) return "100%";
    if (p >= 0.0995) return Math.round(p * 100) + "%";
    return p >= 0.001 ? (p * 100).toFixed(1) + "%" : p > 0 ? "<0.1%" : "0%";
  };

  const append = (parent, tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    parent.append(element);
    return element;
  };

  // details: as token_html.token_details makes them
  const showDetails = (target, details) => {
    const bits = -Math.log2(Math.max(details.p, 1e-30));
    const sampled = details.s !== undefined;
    target.replaceChildren();
    append(target, "div", details.n, "name");
    const rank = `rank ${details.r.toLocaleString("en")} of ${details.v.toLocaleString("en")}`;
    const summary = `Probability ${percent(details.p)}, ${bits.toFixed(1)} bits, ${rank}`;
    append(target, "p", sampled ? `${summary}; ${percent(details.s)} after sampling settings` : summary, "probability");
    const table = append(target, "table");
    const head = append(append(table, "thead"), "tr");
    const columns = ["#", "token", "model", ...(sampled ? ["after settings"] : [])];
    for (const name of columns) append(head, "th", name).scope = "col";
    const body = append(table, "tbody");
    details.a.forEach(([name, p, q], index) => {
      const isTarget = index === details.c;
      const rank = isTarget ? details.r : index + 1;
      const row = append(body, "tr");
      row.classList.toggle("target", isTarget);
      row.classList.toggle("rank-gap", rank > index + 1);
      row.classList.toggle("removed", q === 0);
      append(row, "td", rank.toLocaleString("en"), "rank");
      const cell = append(row, "th", name);
      cell.scope = "row";
      cell.style.setProperty("--p", p);
      append(row, "td", percent(p));
      if (q !== undefined) append(row, "td", percent(q));
    });
  };

  const selected = (area) => area.querySelector("[aria-selected=true]");

  const deselect = (area) => {
    const token = selected(area);
    token?.setAttribute("aria-selected", "false");
    token?.removeAttribute("id");
    token?.closest(".tokens").removeAttribute("aria-activedescendant");
  };

  // area: a text and the card beside it. Pointing shows a token's details; selecting it keeps them.
  const show = (token, select) => {
    const list = token.closest(".tokens");
    const area = list.closest(".with-card");
    const card = area.querySelector(".card");
    for (const other of area.querySelectorAll(".shown")) other.classList.remove("shown");
    token.classList.add("shown");
    showDetails(card.querySelector(".details"), JSON.parse(token.dataset.t));
    if (!select) return;
    card.scrollIntoView({ block: "nearest" }); // on a phone it is below the text
    deselect(area);
    token.setAttribute("aria-selected", "true");
    token.id = area.id + "-token";
    list.setAttribute("aria-activedescendant", token.id);
  };

  const tokenAt = (event) => event.target.closest?.(".tokens [role=option]");

  document.addEventListener("pointerover", (event) => {
    const token = tokenAt(event);
    if (token && !selected(token.closest(".with-card")) && event.pointerType !== "touch") show(token, false);
  });
  document.addEventListener("click", (event) => {
    const token = tokenAt(event);
    if (token) show(token, true);
  });
  document.addEventListener("keydown", (event) => {
    const list = event.target.closest?.(".tokens");
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    if (!list || !(event.key in steps || event.key === "Escape")) return;
    event.preventDefault();
    if (event.key === "Escape") {
      deselect(list.closest(".with-card"));
      return;
    }
    const all = [...list.querySelectorAll("[role=option]")];
    const current = all.findIndex((token) => token.getAttribute("aria-selected") === "true");
    const next = Math.min(all.length - 1, Math.max(0, current + steps[event.key]));
    show(all[next], true);
    all[next].scrollIntoView({ block: "nearest" });
  });

  // Gradio submits on Enter. Not so for an Enter that ends an IME composition, or on a phone, which has no Shift+Enter.
  const touch = matchMedia("(hover: none) and (pointer: coarse)");
  let breaksLine = false;
  const isEnter = (event) => event.key === "Enter" && event.target.matches?.(".text-box textarea");
  document.addEventListener("keydown", (event) => {
    // 229: a composition in Safari
    if (isEnter(event)) breaksLine = event.isComposing || event.keyCode === 229 || touch.matches;
  }, true);
  document.addEventListener("keypress", (event) => {
    if (isEnter(event) && breaksLine) event.stopImmediatePropagation();
  }, true);

  // A message is copied. Without https or this machine's own address, browsers have no clipboard API.
  const copy = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const box = append(document.body, "textarea", text);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    if (!done) throw new Error("The browser refused to copy.");
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("button.copy");
    if (!button) return;
    const said = await copy(button.dataset.text).then(() => "Copied", () => "Not copied");
    button.textContent = said;
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });

  // A conversation stays scrolled to its end, also when its size changes, until the reader scrolls up.
  class Scroller {
    constructor(element, label) {
      Object.assign(this, { element, scrollTop: 0, atEnd: true, generating: false });
      Object.assign(element, { tabIndex: 0, role: "group", ariaLabel: label });
      new ResizeObserver(() => this.restore()).observe(element);
      element.addEventListener("scroll", () => {
        this.atEnd = element.scrollHeight - element.clientHeight - element.scrollTop < 8;
        this.scrollTop = element.scrollTop;
      });
    }
    restore() {
      if (this.element.clientHeight) this.element.scrollTop = this.atEnd ? this.element.scrollHeight : this.scrollTop;
    }
    update(changes) {
      const caret = this.element.querySelector(".caret");
      if (caret && !this.generating) {
        this.atEnd = true; // show the start of a new answer, wherever the reader has scrolled to
        this.element.scrollIntoView({ block: "nearest" });
      }
      if (changes.some((change) => this.element.contains(change.target))) this.restore();
      this.generating = Boolean(caret);
    }
  }
  const labels = { text: "The text so far", "chat-text": "The conversation" };
  const scrollers = {};
  new MutationObserver((changes) => {
    for (const [id, label] of Object.entries(labels)) {
      const element = document.getElementById(id);
      if (element && element !== scrollers[id]?.element) scrollers[id] = new Scroller(element, label);
      scrollers[id]?.update(changes);
    }
    for (const details of document.querySelectorAll(".card .details:not(:empty)"))
      if (!details.closest(".with-card").querySelector(".shown")) details.replaceChildren(); // their token was removed
  }).observe(document.documentElement, { childList: true, subtree: true });

  document.documentElement.lang = "en";
})();
