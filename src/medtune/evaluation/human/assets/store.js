"use strict";
// The rater's work: what it is, and where it is kept.

const DATA = JSON.parse(document.getElementById("data").textContent);
const STORE_KEY = `answer-ratings-${DATA.sheet}`;
const RATING_COLUMNS = DATA.criteria.flatMap(({ name }) => DATA.sides.map((side) => `${name}_${side}`));
const COLUMNS = [...RATING_COLUMNS, "preference"];
const ITEM_NAMES = new Set(DATA.items.map((item) => item.name));

// Keeps known items and values alone: the browser's store and files are as foreign as the rows.
function cleanRatings(raw) {
  const ratings = {};
  for (const [item, values] of Object.entries(raw ?? {})) {
    if (!ITEM_NAMES.has(item) || typeof values !== "object" || values === null) continue;
    const kept = {};
    for (const column of RATING_COLUMNS) {
      if (DATA.scale.includes(values[column])) kept[column] = values[column];
    }
    if (DATA.preferences.includes(values.preference)) kept.preference = values.preference;
    if (typeof values.comment === "string" && values.comment) kept.comment = values.comment;
    if (Object.keys(kept).length) ratings[item] = kept;
  }
  return ratings;
}

function cleanWork(raw) {
  const current = Number.isInteger(raw?.current) ? raw.current : 0;
  return {
    rater: typeof raw?.rater === "string" ? raw.rater : "",
    current: Math.min(Math.max(current, 0), DATA.items.length - 1),
    started: raw?.started === true,
    shortcuts: raw?.shortcuts !== false,
    ratings: cleanRatings(raw?.ratings),
  };
}

function loadWork() {
  try {
    return cleanWork(JSON.parse(localStorage.getItem(STORE_KEY)));
  } catch {
    return cleanWork(null);
  }
}

// Whether it was kept: some browsers keep nothing for files, or nothing in private windows.
function keepWork(work) {
  try {
    localStorage.setItem(STORE_KEY, JSON.stringify(work));
    return true;
  } catch {
    return false;
  }
}

function exportTable(work) {
  const header = ["sheet", "item", "rater", ...RATING_COLUMNS, "preference", "comment"];
  const rows = DATA.items.filter(({ name }) => work.ratings[name]).map(({ name }) => {
    const values = work.ratings[name];
    const preference = values.preference ?? "";
    return [
      DATA.sheet, name, disarm(work.rater), ...RATING_COLUMNS.map((column) => values[column] ?? ""),
      preference.length === 1 ? preference.toUpperCase() : preference, disarm(values.comment ?? ""),
    ];
  });
  return formatTable([header, ...rows]);
}

// The file's ratings and rater; throws an Error with a line for the rater where the file is not one of this sheet.
function importTable(text) {
  const rows = readTable(text, ["sheet", "item", "rater", "comment", ...COLUMNS]);
  if (!rows.length || !rows[0].has("sheet") || !rows[0].has("item")) {
    throw new Error("This is no file of ratings: it needs the columns sheet and item.");
  }
  const raters = new Set();
  const raw = {};
  for (const row of rows) {
    const filled = [...COLUMNS, "comment"].filter((column) => row.get(column));
    if (!filled.length) continue;
    if (row.get("sheet") !== DATA.sheet) {
      throw new Error(`This file belongs to sheet ${row.get("sheet")}, and this page is sheet ${DATA.sheet}.`);
    }
    if (row.get("rater")) raters.add(rearm(row.get("rater")));
    const values = {};
    for (const column of filled) {
      if (RATING_COLUMNS.includes(column)) values[column] = Number(row.get(column).replace(",", "."));
      else if (column === "preference") values.preference = row.get(column).toLowerCase();
      else values.comment = rearm(row.get(column));
    }
    raw[Number(row.get("item").replace(",", "."))] = values;
  }
  if (raters.size > 1) throw new Error("This file holds several raters' work: import one rater's.");
  return { ratings: cleanRatings(raw), rater: [...raters][0] ?? "" };
}
