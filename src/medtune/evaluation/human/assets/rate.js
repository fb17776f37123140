// The page: shows one item at a time, takes ratings by mouse, touch and keyboard.

const $ = (id) => document.getElementById(id);
let work = loadWork();
let isKept = keepWork(work);
let hasUnexported = false;

// Every text of a row goes through textContent: nothing in it is ever markup.
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const item = () => DATA.items[work.current];
const values = (name = item().name) => work.ratings[name] ?? {};
const isComplete = (name) => COLUMNS.every((column) => column in values(name));
const isIdentical = () => item().answer_a === item().answer_b;
const group = (column) => $(`group-${column}`);
const say = (message) => { $("message").textContent = message; };

// Building ----------------------------------------------------------------------------------------------------------

function choice(column, value, text, label) {
  const input = element("input", { type: "radio", name: column, value });
  input.setAttribute("aria-label", label);
  return element("label", {}, input, element("span", { textContent: text }));
}

function buildCriterion(criterion) {
  const { name, title, question, lowest, middle, highest } = criterion;
  const words = { 1: lowest, 3: middle, 5: highest };
  const rows = DATA.sides.map((side) => {
    const column = `${name}_${side}`;
    const letter = side.toUpperCase();
    const fieldset = element("fieldset", { id: `group-${column}` },
      element("legend", { className: "hidden-text", textContent: `${title} of answer ${letter}` }),
      element("span", { className: "side", textContent: letter, ariaHidden: "true" }),
      ...DATA.scale.map((value) => choice(column, value, value, words[value] ? `${value}, ${words[value]}` : value)));
    return fieldset;
  });
  $("criteria").append(element("section", { className: "criterion" },
    element("h3", { textContent: title }), element("p", { className: "muted", textContent: question }), ...rows,
    element("p", { className: "ends muted", ariaHidden: "true" },
      element("span", { textContent: `1 ${lowest}` }), element("span", { textContent: `5 ${highest}` }))));
  $("rubric").append(element("tr", {}, element("th", { scope: "row", textContent: title }),
    ...Object.entries(words).map(([value, text]) => {
      const cell = element("td", { textContent: text });
      cell.dataset.value = value;
      return cell;
    })));
}

function build() {
  DATA.criteria.forEach(buildCriterion);
  $("preference-question").textContent = DATA.preference_question;
  const names = { a: ["A", "Answer A"], b: ["B", "Answer B"], tie: ["Tie", "Tie: neither, or both alike"] };
  DATA.preferences.forEach((value) => $("preferences").append(choice("preference", value, ...names[value])));
  DATA.guide.forEach((text) => $("guide-text").append(element("li", { textContent: text })));
  DATA.items.forEach(({ name }) => $("jump").append(element("option")));
  $("progress").max = DATA.items.length;
}

// Showing -----------------------------------------------------------------------------------------------------------

function showItem(index) {
  work.current = index;
  $("place").textContent = `Item ${item().name} of ${DATA.items.length}`;
  for (const field of ["question", "reference", "answer_a", "answer_b"]) $(field).textContent = item()[field];
  $("identical").hidden = !isIdentical();
  $("previous").disabled = index === 0;
  $("next").disabled = index === DATA.items.length - 1;
  showValues();
}

function goTo(index) {
  say("");
  showItem(Math.min(Math.max(index, 0), DATA.items.length - 1));
  save();
  window.scrollTo(0, 0);
  $("place").focus({ preventScroll: true });
}

function showValues() {
  for (const column of COLUMNS) {
    for (const input of group(column).querySelectorAll("input")) {
      input.checked = input.value === String(values()[column] ?? "");
    }
  }
  if ($("comment").value !== (values().comment ?? "")) $("comment").value = values().comment ?? "";
  showProgress();
}

function showProgress() {
  const complete = DATA.items.filter(({ name }) => isComplete(name)).length;
  $("progress").value = complete;
  $("progress-text").textContent = `${complete} of ${DATA.items.length} rated`;
  [...$("jump").options].forEach((option, i) => {
    const { name } = DATA.items[i];
    const mark = isComplete(name) ? " ✓" : work.ratings[name] ? " …" : "";
    if (option.textContent !== name + mark) option.textContent = name + mark;
  });
  $("jump").selectedIndex = work.current;
  const isDone = complete === DATA.items.length;
  $("export").classList.toggle("primary", isDone);
  $("unrated").disabled = isDone;
  if (isDone && hasUnexported) say("Every item is rated. Export your ratings and send the file back.");
}

function save() {
  isKept = keepWork(work);
  $("storage").textContent = isKept
    ? "Every click is saved in this browser, on this device, and is there when you open the page again. A private "
      + "window forgets it when closed."
    : "This browser does not keep data for this page: export before you close it, and import the file to go on.";
  document.body.classList.toggle("unkept", !isKept);
}

// Rating ------------------------------------------------------------------------------------------------------------

function set(column, value) {
  const entry = { ...values() };
  if (value === undefined || value === "") delete entry[column];
  else entry[column] = value;
  if (isIdentical() && RATING_COLUMNS.includes(column)) {
    const twin = column.endsWith("_a") ? column.replace(/_a$/, "_b") : column.replace(/_b$/, "_a");
    if (value === undefined) delete entry[twin];
    else Object.assign(entry, { [twin]: value, preference: "tie" });
  }
  if (Object.keys(entry).length) work.ratings[item().name] = entry;
  else delete work.ratings[item().name];
  hasUnexported = true;
  save();
  showValues();
  if (!isKept) say("Not saved by this browser: export before you close the page.");
}

function focusGroup(column) {
  const input = group(column).querySelector("input:checked") ?? group(column).querySelector("input");
  input.focus({ preventScroll: true });
  group(column).scrollIntoView({ block: "nearest" });
}

const focusedColumn = () => COLUMNS.find((column) => group(column).contains(document.activeElement));
const firstGap = (from = 0) => COLUMNS.slice(from).find((column) => !(column in values()));

function rateFocused(value) {
  const column = focusedColumn() ?? firstGap();
  if (!column || column === "preference") return;
  set(column, value);
  const following = COLUMNS.indexOf(column) + 1;
  focusGroup(firstGap(following) ?? COLUMNS[following]);
}

function goToUnrated() {
  const index = DATA.items.findIndex(({ name }) => !isComplete(name));
  if (index >= 0) goTo(index);
}

// Keys --------------------------------------------------------------------------------------------------------------

const KEYS = {
  a: () => { set("preference", "a"); focusGroup("preference"); },
  b: () => { set("preference", "b"); focusGroup("preference"); },
  t: () => { set("preference", "tie"); focusGroup("preference"); },
  n: () => goTo(work.current + 1),
  p: () => goTo(work.current - 1),
  u: goToUnrated,
  r: () => { $("reference-box").open = !$("reference-box").open; },
  c: () => $("comment").focus(),
  "?": () => $("guide").showModal(),
  Enter: () => goTo(work.current + 1),
  Backspace: () => { if (focusedColumn()) set(focusedColumn(), undefined); },
};

function onKey(event) {
  const { target, key } = event;
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if ($("guide").open) {
    if (key === "Enter" && !target.matches("button, input")) $("guide").close();
    return;
  }
  if (target.matches("textarea, input[type=text]")) {
    if (key === "Escape" || (key === "Enter" && target.matches("input"))) target.blur();
    return;
  }
  if (!work.shortcuts || target.matches("select")) return;
  if (key === "Enter" && target.matches("button, summary")) return;
  const action = /^[1-5]$/.test(key) ? () => rateFocused(Number(key)) : KEYS[key] ?? KEYS[key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action();
}

// Files -------------------------------------------------------------------------------------------------------------

function exportRatings() {
  if (!work.rater.trim()) {
    say("Write your name or initials first: the file is called after you.");
    $("rater").focus();
    return;
  }
  const url = URL.createObjectURL(new Blob([exportTable(work)], { type: "text/csv;charset=utf-8" }));
  const rater = work.rater.trim().replace(/[^\p{L}\p{N}_-]+/gu, "-");
  element("a", { href: url, download: `ratings-${DATA.sheet}-${rater}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  hasUnexported = false;
  say(`Exported ${Object.keys(work.ratings).length} items to ratings-${DATA.sheet}-${rater}.csv.`);
}

async function importRatings(file) {
  try {
    const { ratings, rater } = importTable(await file.text());
    if (rater && work.rater && rater.toLowerCase() !== work.rater.trim().toLowerCase()) {
      throw new Error(`This file is ${rater}'s work, and this page holds ${work.rater}'s: start over first.`);
    }
    const replaced = Object.keys(ratings).filter((name) => Object.entries(ratings[name]).some(
      ([column, value]) => column in values(name) && values(name)[column] !== value)).length;
    if (replaced && !confirm(`${replaced} items are rated otherwise here. Replace them with the file's ratings?`)) return;
    for (const name of Object.keys(ratings)) work.ratings[name] = { ...values(name), ...ratings[name] };
    if (rater && !work.rater) work.rater = rater;
    $("rater").value = work.rater;
    save();
    showValues();
    say(`Imported ${Object.keys(ratings).length} items from ${file.name}.`);
  } catch (error) {
    say(error.message);
  }
}

function startOver() {
  if (!confirm("Delete all ratings on this page? Export them first to keep them.")) return;
  work = cleanWork({ shortcuts: work.shortcuts, started: true });
  hasUnexported = false;
  $("rater").value = "";
  $("guide").close();
  goTo(0);
}

// Start -------------------------------------------------------------------------------------------------------------

function listen() {
  $("ratings").addEventListener("submit", (event) => event.preventDefault());
  $("ratings").addEventListener("change", ({ target }) => {
    if (target.type === "radio") set(target.name, target.name === "preference" ? target.value : Number(target.value));
  });
  $("comment").addEventListener("input", ({ target }) => set("comment", target.value));
  $("rater").addEventListener("input", ({ target }) => { work.rater = target.value; save(); });
  $("previous").addEventListener("click", () => goTo(work.current - 1));
  $("next").addEventListener("click", () => goTo(work.current + 1));
  $("unrated").addEventListener("click", goToUnrated);
  $("jump").addEventListener("change", ({ target }) => goTo(target.selectedIndex));
  $("export").addEventListener("click", exportRatings);
  $("import").addEventListener("click", () => $("import-file").click());
  $("import-file").addEventListener("change", async ({ target }) => {
    if (target.files.length) await importRatings(target.files[0]);
    target.value = "";
  });
  $("open-guide").addEventListener("click", () => $("guide").showModal());
  $("close-guide").addEventListener("click", () => $("guide").close());
  $("guide").addEventListener("close", () => {
    work.started = true;
    save();
    // The event comes late: a quick rater's keys may have moved the focus on by then.
    if (document.activeElement === document.body) $("place").focus({ preventScroll: true });
  });
  $("start-over").addEventListener("click", startOver);
  $("shortcuts").addEventListener("change", ({ target }) => { work.shortcuts = target.checked; save(); });
  document.addEventListener("keydown", onKey);
  window.addEventListener("beforeprint", printSheet);
  window.addEventListener("beforeunload", (event) => { if (!isKept && hasUnexported) event.preventDefault(); });
  // Two tabs of one sheet: the one that is looked at must not overwrite the other's work.
  window.addEventListener("storage", (event) => {
    if (event.key !== STORE_KEY || event.newValue === null) return;
    work = { ...loadWork(), current: work.current };
    $("rater").value = work.rater;
    showValues();
  });
}

build();
listen();
$("app").hidden = false;
$("rater").value = work.rater;
$("shortcuts").checked = work.shortcuts;
showItem(work.current);
save();
if (!work.started) $("guide").showModal();
