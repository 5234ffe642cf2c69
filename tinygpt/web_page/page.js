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

  const fill = (card, facts) => {
    const bits = -Math.log2(Math.max(facts.p, 1e-30));
    card.replaceChildren();
    add(card, "div", facts.n, "name");
    const told = `${percent(facts.p)} likely, ${bits.toFixed(1)} bits, number ${facts.r.toLocaleString("en")} of ${facts.v.toLocaleString("en")}`;
    add(card, "p", facts.s === undefined ? told : `${told}; after temperature and cuts ${percent(facts.s)}`, "facts");
    const table = add(card, "table");
    const head = add(add(table, "thead"), "tr");
    for (const name of ["could have come", "model", ...(facts.s === undefined ? [] : ["sampled"])]) add(head, "th", name).scope = "col";
    const body = add(table, "tbody");
    facts.a.forEach(([name, p, q], place) => {
      const row = add(body, "tr", undefined, (place === facts.c ? "came" : "") + (q === 0 ? " cut" : ""));
      const cell = add(row, "th", name);
      cell.scope = "row";
      cell.style.setProperty("--p", p);
      add(row, "td", percent(p));
      if (q !== undefined) add(row, "td", q === 0 ? "cut" : percent(q));
    });
  };

  const choose = (token, keep) => {
    const list = token.closest(".tokens");
    const card = list.closest(".sheet").querySelector(".card");
    for (const other of list.querySelectorAll(".chosen")) other.classList.remove("chosen");
    token.classList.add("chosen");
    fill(card, JSON.parse(token.dataset.t));
    if (!keep) return;
    card.scrollIntoView({ block: "nearest" }); // below the text on a phone
    for (const other of list.querySelectorAll("[aria-selected=true]")) other.setAttribute("aria-selected", "false");
    token.setAttribute("aria-selected", "true");
    token.id = "token";
    list.setAttribute("aria-activedescendant", "token");
    for (const other of list.querySelectorAll("#token")) if (other !== token) other.removeAttribute("id");
  };

  const tokenAt = (event) => event.target.closest?.(".tokens [role=option]");

  document.addEventListener("pointerover", (event) => {
    const token = tokenAt(event);
    const kept = token?.closest(".tokens").querySelector("[aria-selected=true]");
    if (token && !kept && event.pointerType !== "touch") choose(token, false);
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
      if (now >= 0) all[now].setAttribute("aria-selected", "false");
      return;
    }
    const then = Math.min(all.length - 1, Math.max(0, now + steps[event.key]));
    choose(all[then], true);
    all[then].scrollIntoView({ block: "nearest" });
  });

  // The text scrolls with what is written, as long as its end is in view.
  new MutationObserver(() => {
    const text = document.querySelector("#sheet .text");
    if (text && document.querySelector("#sheet .caret")) text.scrollTop = text.scrollHeight;
  }).observe(document.documentElement, { childList: true, subtree: true });

  document.documentElement.lang = "en";
})();
