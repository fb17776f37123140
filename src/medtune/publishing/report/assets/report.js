"use strict";
(() => {
  // A phone shows an answer a screen.
  const PAGE = matchMedia("(max-width: 40rem)").matches ? 5 : 10;
  // More than this, and a text begins with its first lines alone; as in the examples above.
  const LONG_CHARACTERS = 240;
  const LONG_LINES = 6;
  const byId = (id) => document.getElementById(id);
  const status = byId("browser-status");
  let rows = [];
  let found = [];
  let page = 0;

  // Text only ever becomes a text node: nothing of a row is parsed as markup.
  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  const unpack = async () => {
    const coded = atob(byId("packed").textContent);
    const bytes = Uint8Array.from(coded, (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  };

  const gain = (row) => (row.rougeL ? row.rougeL[1] - row.rougeL[0] : 0);
  const ORDERS = {
    n: (a, b) => a.n - b.n,
    gain: (a, b) => gain(b) - gain(a) || a.n - b.n,
    loss: (a, b) => gain(a) - gain(b) || a.n - b.n,
    long: (a, b) => (b.tokens[2] || 0) - (a.tokens[2] || 0) || a.n - b.n,
  };
  const matches = (row, wanted) => {
    if (wanted.type && row.type !== wanted.type) return false;
    if (wanted.gain === "better" && !(gain(row) > 0)) return false;
    if (wanted.gain === "worse" && !(gain(row) < 0)) return false;
    if (wanted.gain === "equal" && gain(row) !== 0) return false;
    if (wanted.capped === "baseline" && !row.capped[0]) return false;
    if (wanted.capped === "tuned" && !row.capped[1]) return false;
    if (wanted.capped === "neither" && (row.capped[0] || row.capped[1])) return false;
    if (!wanted.words.length) return true;
    row.lower ??= [row.question, row.reference, row.baseline, row.tuned, row.id].join("\n").toLowerCase();
    return wanted.words.every((word) => row.lower.includes(word));
  };

  // An element, and where its text is long a box and a label that show all of it; a style sheet does the rest.
  const clipped = (element, row, name, called) => {
    if (row[name].length <= LONG_CHARACTERS && row[name].split("\n").length <= LONG_LINES + 1) return [element];
    const more = make("input", "more");
    more.type = "checkbox";
    more.id = `row-${row.n}-${name}`;
    const label = make("label", "", "Show more");
    label.append(make("span", "hidden-text", ` of the ${called}, row ${row.n}`));
    label.htmlFor = more.id;
    return [more, element, label];
  };

  const side = (row, name, label, place) => {
    const box = make("div", `side ${name}`);
    const facts = [];
    if (row.tokens[place] !== null) facts.push(`${row.tokens[place].toLocaleString("en")} tokens`);
    if (place && row.rougeL) facts.push(`ROUGE-L ${row.rougeL[place - 1].toFixed(4)}`);
    if (place && row.bertscore_f1) facts.push(`BERTScore ${row.bertscore_f1[place - 1].toFixed(4)}`);
    if (place && row.capped[place - 1]) facts.push("cut at the cap");
    const title = make("h5", "", label);
    const detail = make("p", "facts muted", facts.join(", "));
    const text = make("p", "text", row[name] || "(empty answer)");
    if (row.cut[name]) text.append(`… (${row.cut[name].toLocaleString("en")} characters in all)`);
    text.dir = "auto";
    box.append(title, detail, ...clipped(text, row, name, label.toLowerCase()));
    return box;
  };

  const card = (row) => {
    const box = make("article", "row");
    const question = make("h4", "", row.question || "(empty question)");
    question.dir = "auto";
    const sides = make("div", "sides");
    sides.append(
      side(row, "reference", "Reference", 0),
      side(row, "baseline", "Baseline", 1),
      side(row, "tuned", "Tuned", 2),
    );
    const about = make("p");
    about.append(make("bdi", "", [`question ${row.n}`, row.type, row.id].filter(Boolean).join(" · ")));
    box.append(...clipped(question, row, "question", "question"), about, sides);
    return box;
  };

  const show = (moved) => {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    byId("rows").replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(card));
    byId("place").textContent = `Page ${page + 1} of ${pages}`;
    byId("previous").disabled = page === 0;
    byId("next").disabled = page === pages - 1;
    const count = (n) => n.toLocaleString("en");
    status.textContent = `${count(found.length)} of ${count(rows.length)} rows, ${PAGE} a page.`;
    if (moved) {
      byId("rows").focus({ preventScroll: true });
      byId("filters").scrollIntoView();
    }
  };

  const filter = () => {
    const wanted = {
      type: byId("type").value,
      gain: byId("gain").value,
      capped: byId("capped").value,
      words: byId("search").value.toLowerCase().split(/\s+/).filter(Boolean),
    };
    found = rows.filter((row) => matches(row, wanted)).sort(ORDERS[byId("order").value]);
    page = 0;
    show(false);
  };

  const start = async () => {
    if (typeof DecompressionStream === "undefined") {
      status.textContent =
        "This browser cannot unpack the answers (it has no DecompressionStream). A browser of 2023 or later can; " +
        "baseline/predictions.jsonl and tuned/predictions.jsonl hold them as text.";
      return;
    }
    try {
      rows = await unpack();
    } catch {
      status.textContent = "The answers in this file are damaged; write it again with medtune report.";
      return;
    }
    if (!rows.some((row) => row.rougeL)) byId("gain").closest("label").hidden = true;
    let waiting = 0;
    byId("search").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(filter, 150);
    });
    for (const id of ["type", "gain", "capped", "order"]) byId(id).addEventListener("change", filter);
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("previous").addEventListener("click", () => { page -= 1; show(true); });
    byId("next").addEventListener("click", () => { page += 1; show(true); });
    byId("filters").hidden = false;
    byId("pages").hidden = false;
    filter();
  };

  // Which section is being read, for the contents.
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -75% 0px" });
  for (const section of document.querySelectorAll("main > section")) watcher.observe(section);

  // Inside a notebook the page is a frame's text, whose links to its own parts would lead to the notebook's address.
  if (document.URL === "about:srcdoc") {
    document.addEventListener("click", (event) => {
      const link = event.target.closest("a[href^='#']");
      if (!link) return;
      event.preventDefault();
      byId(link.hash.slice(1)).scrollIntoView();
    });
  }

  start();
})();
