// CSV as spreadsheets write and read it.

// What a spreadsheet could run as a formula gets an apostrophe, as in the sheet itself.
const FORMULA_START = /(^|[;\t\r\n])(?=(?:[^\S\r\n]|")*[=+\-@\uff1d\uff0b\uff0d\uff20])/g;
const DISARMED_START = /(^|[;\t\r\n])'(?=(?:[^\S\r\n]|")*[=+\-@\uff1d\uff0b\uff0d\uff20])/g;
const disarm = (text) => text.replace(FORMULA_START, "$1'");
const rearm = (text) => text.replace(DISARMED_START, "$1");

function formatTable(rows) {
  const cell = (value) => `"${String(value).replaceAll('"', '""')}"`;
  // The byte order mark is for Excel, which would read another encoding without it.
  return "\ufeff" + rows.map((row) => row.map(cell).join(",") + "\r\n").join("");
}

function parseTable(text, delimiter) {
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const sign = text[i];
    if (quoted) {
      if (sign !== '"') cell += sign;
      else if (text[i + 1] === '"') cell += text[++i];
      else quoted = false;
    } else if (sign === '"') quoted = true;
    else if (sign === delimiter) {
      row.push(cell);
      cell = "";
    } else if (sign === "\n" || sign === "\r") {
      if (sign === "\r" && text[i + 1] === "\n") i++;
      rows.push([...row, cell]);
      row = [];
      cell = "";
    } else cell += sign;
  }
  if (cell || row.length) rows.push([...row, cell]);
  return rows.filter((cells) => cells.some((value) => value.trim()));
}

// Rows as column → text, with the column names of the sheet; legends in brackets and letter case do not matter.
function readTable(text, columns) {
  const name = (cell) => cell.split("(")[0].trim().toLowerCase().replace(/[\s-]+/g, "_");
  const ours = (rows) => (rows[0] ?? []).filter((cell) => columns.includes(name(cell))).length;
  const [rows] = [",", ";", "\t"].map((delimiter) => parseTable(text.replace(/^\ufeff/, ""), delimiter))
    .sort((left, right) => ours(right) - ours(left));
  const header = (rows[0] ?? []).map(name);
  return rows.slice(1).map((row) => new Map(header.map((column, i) => [column, (row[i] ?? "").trim()])));
}
