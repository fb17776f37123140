// All items on paper, with what is rated so far in brackets.

function paperItem({ name, question, reference, answer_a, answer_b }) {
  const text = (title, words) => [element("h3", { textContent: title }),
    element("p", { className: "text", dir: "auto", textContent: words })];
  const marks = (column, all) => all.map((value) => {
    const shown = value.length === 1 ? value.toUpperCase() : value;
    return values(name)[column] === value ? `[${shown}]` : `${shown}`;
  }).join("  ");
  const rows = DATA.criteria.map((criterion) => element("tr", {},
    element("th", { scope: "row", textContent: criterion.title }),
    ...DATA.sides.map((side) => element("td",
      { textContent: `${side.toUpperCase()}:  ${marks(`${criterion.name}_${side}`, DATA.scale)}` }))));
  const preference = element("tr", {}, element("th", { scope: "row", textContent: "Preference" }),
    element("td", { colSpan: 2, textContent: marks("preference", DATA.preferences) }));
  return element("section", {}, element("h2", { textContent: `Item ${name}` }), ...text("Question", question),
    ...text("Reference answer", reference), ...text("Answer A", answer_a), ...text("Answer B", answer_b),
    element("table", {}, ...rows, preference), element("p", { textContent: `Comment: ${values(name).comment ?? ""}` }));
}

function printSheet() {
  const rubric = $("rubric").parentElement.cloneNode(true);
  rubric.querySelector("tbody").removeAttribute("id");
  $("paper").replaceChildren(
    element("h1", { textContent: `Answers to rate, sheet ${DATA.sheet}` }),
    element("p", { textContent: `Rater: ${work.rater}` }),
    element("ul", {}, ...DATA.guide.map((text) => element("li", { textContent: text }))),
    rubric,
    ...DATA.items.map(paperItem));
}
