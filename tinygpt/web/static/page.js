// The card of a token: pointing, clicking and arrow keys choose one; all text goes in as textContent, never as HTML.
(() => {
  const percent = (p) => (p >= 0.9995 ? "100%" : p >= 0.0995 ? Math.round(p * 100) + "%" : p >= 0.001 ? (p * 100).toFixed(1) + "%" : p > 0 ? "<0.1%" : "0%");

  const add = (parent, tag, text, kind) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    parent.append(made);
    return made;
  };

  const fill = (about, facts) => {
    const bits = -Math.log2(Math.max(facts.p, 1e-30));
    const sampled = facts.s !== undefined;
    about.replaceChildren();
    add(about, "div", facts.n, "name");
    const told = `Probability ${percent(facts.p)}, ${bits.toFixed(1)} bits, rank ${facts.r.toLocaleString("en")} of ${facts.v.toLocaleString("en")}`;
    add(about, "p", sampled ? `${told}; ${percent(facts.s)} after sampling settings` : told, "facts");
    const table = add(about, "table");
    const head = add(add(table, "thead"), "tr");
    for (const name of ["#", "token", "model", ...(sampled ? ["after sampling"] : [])]) add(head, "th", name).scope = "col";
    const body = add(table, "tbody");
    facts.a.forEach(([name, p, q], place) => {
      const came = place === facts.c;
      const rank = came ? facts.r : place + 1;
      const row = add(body, "tr", undefined, (came ? "came" : "") + (rank > place + 1 ? " beyond" : "") + (q === 0 ? " cut" : ""));
      add(row, "td", rank.toLocaleString("en"), "rank");
      const cell = add(row, "th", name);
      cell.scope = "row";
      cell.style.setProperty("--p", p);
      add(row, "td", percent(p));
      if (q !== undefined) add(row, "td", percent(q));
    });
  };

  const chosen = (sheet) => sheet.querySelector("[aria-selected=true]");

  const release = (sheet) => {
    const token = chosen(sheet);
    token?.setAttribute("aria-selected", "false");
    token?.removeAttribute("id");
    token?.closest(".tokens").removeAttribute("aria-activedescendant");
  };

  const choose = (token, keep) => {
    const list = token.closest(".tokens");
    const sheet = list.closest(".sheet");
    const card = sheet.querySelector(".card");
    for (const other of sheet.querySelectorAll(".chosen")) other.classList.remove("chosen");
    token.classList.add("chosen");
    fill(card.querySelector(".about"), JSON.parse(token.dataset.t));
    if (!keep) return;
    card.scrollIntoView({ block: "nearest" }); // below the text on a phone
    release(sheet);
    token.setAttribute("aria-selected", "true");
    token.id = sheet.id + "-token";
    list.setAttribute("aria-activedescendant", token.id);
  };

  const tokenAt = (event) => event.target.closest?.(".tokens [role=option]");

  document.addEventListener("pointerover", (event) => {
    const token = tokenAt(event);
    if (token && !chosen(token.closest(".sheet")) && event.pointerType !== "touch") choose(token, false);
  });
  document.addEventListener("click", (event) => {
    const token = tokenAt(event);
    if (token) choose(token, true);
  });
  document.addEventListener("keydown", (event) => {
    const list = event.target.closest?.(".tokens");
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    if (!list || !(event.key in steps || event.key === "Escape")) return;
    event.preventDefault();
    const all = [...list.querySelectorAll("[role=option]")];
    const now = all.findIndex((token) => token.getAttribute("aria-selected") === "true");
    if (event.key === "Escape") {
      release(list.closest(".sheet"));
      return;
    }
    const then = Math.min(all.length - 1, Math.max(0, now + steps[event.key]));
    choose(all[then], true);
    all[then].scrollIntoView({ block: "nearest" });
  });

  // Enter writes, which Gradio does; but not the Enter that ends a composition, nor that of a phone, which has no Shift.
  const touch = matchMedia("(hover: none) and (pointer: coarse)");
  let breaks = false;
  const inBox = (event) => event.key === "Enter" && event.target.matches?.(".written textarea");
  document.addEventListener("keydown", (event) => {
    if (inBox(event)) breaks = event.isComposing || event.keyCode === 229 || touch.matches;
  }, true);
  document.addEventListener("keypress", (event) => {
    if (inBox(event) && breaks) event.stopImmediatePropagation();
  }, true);

  // The text stays at its end, whatever is written and however it is laid out, until its reader scrolls up.
  let text, at = 0, atEnd = true, writing = false;
  const follow = () => {
    if (text.clientHeight) text.scrollTop = atEnd ? text.scrollHeight : at;
  };
  const found = (now) => {
    text = now;
    Object.assign(text, { tabIndex: 0, role: "group", ariaLabel: "The text so far" });
    new ResizeObserver(follow).observe(text);
    text.addEventListener("scroll", () => {
      atEnd = text.scrollHeight - text.clientHeight - text.scrollTop < 8;
      at = text.scrollTop;
    });
  };
  new MutationObserver((changes) => {
    const now = document.getElementById("text");
    if (now && now !== text) found(now);
    const caret = text?.querySelector(".caret");
    if (caret && !writing) {
      atEnd = true; // whoever asks for an answer wants to see it
      text.scrollIntoView({ block: "nearest" });
    }
    if (text && changes.some((change) => text.contains(change.target))) follow();
    writing = Boolean(caret);
    for (const about of document.querySelectorAll(".card .about:not(:empty)"))
      if (!about.closest(".sheet").querySelector(".chosen")) about.replaceChildren(); // its token is gone
  }).observe(document.documentElement, { childList: true, subtree: true });

  document.documentElement.lang = "en";
})();
