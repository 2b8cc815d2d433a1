// The answers' table: all rows in memory, only those in view in the page.
"use strict";

const ROW_PX = 26;
const MARGIN_ROWS = 20;
// Browsers cap the height of an element near 33 million pixels.
const HEIGHT_MAX_PX = 30_000_000;
const HIDDEN = new Set(["host_hostname", "host_display_name"]);

class Answers {
  constructor(region) {
    this.region = region;
    this.head = region.querySelector("thead");
    this.body = region.querySelector("tbody");
    region.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(region);
    this.clear();
  }

  clear() {
    // Of the queries. The host that answered stands before them and is none of them, whatever they are called.
    this.columns = new Map();
    this.rows = [];
    this.view = null;
    this.needle = "";
    this.pending = false;
    this.drawHead();
    this.draw();
  }

  add(host, rows) {
    for (const row of rows) {
      const cells = [host];
      for (const [name, text] of Object.entries(row)) {
        if (HIDDEN.has(name)) continue;
        if (!this.columns.has(name)) {
          this.columns.set(name, this.columns.size + 1);
          this.headStale = true;
        }
        cells[this.columns.get(name)] = text;
      }
      this.rows.push(cells);
      if (this.view && matches(cells, this.needle)) this.view.push(cells);
    }
    this.later();
  }

  filter(text) {
    this.needle = text.trim().toLowerCase();
    this.view = this.needle ? this.rows.filter((cells) => matches(cells, this.needle)) : null;
    this.draw();
  }

  get visible() {
    return this.view ?? this.rows;
  }

  // A burst of answers is drawn once, with the next frame.
  later() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      if (this.headStale) this.drawHead();
      this.draw();
    });
  }

  drawHead() {
    this.headStale = false;
    const row = document.createElement("tr");
    row.append(cell("th", "host"));
    for (const name of this.columns.keys()) row.append(cell("th", name));
    this.head.replaceChildren(row);
  }

  draw() {
    const rows = this.visible;
    const height = Math.min(rows.length * ROW_PX, HEIGHT_MAX_PX);
    const scale = height ? (rows.length * ROW_PX) / height : 1;
    const inView = Math.ceil(this.region.clientHeight / ROW_PX);
    const top = Math.floor((this.region.scrollTop * scale) / ROW_PX);
    const first = Math.max(0, Math.min(top - MARGIN_ROWS, rows.length - inView));
    const last = Math.min(rows.length, top + inView + MARGIN_ROWS);
    const drawn = rows.slice(first, last).map((cells) => {
      const row = document.createElement("tr");
      for (const text of this.filled(cells)) row.append(cell("td", text));
      return row;
    });
    const above = Math.min((first * ROW_PX) / scale, Math.max(0, height - drawn.length * ROW_PX));
    const below = Math.max(0, height - above - drawn.length * ROW_PX);
    this.body.replaceChildren(space(above), ...drawn, space(below));
  }

  // A cell for each column: rows that came before a column was known, and those without it, have none.
  filled(cells) {
    return Array.from({ length: this.columns.size + 1 }, (_, at) => cells[at] ?? "");
  }

  csv() {
    const line = (cells) => cells.map(quoted).join(",");
    // The name is one that the broker reserves, so that no query's column has it.
    const head = ["host_display_name", ...this.columns.keys()];
    return [head, ...this.visible.map((cells) => this.filled(cells))].map(line).join("\r\n") + "\r\n";
  }
}

function matches(cells, needle) {
  return cells.some((text) => text.toLowerCase().includes(needle));
}

// Hosts are not trusted: their texts only ever become text nodes.
function cell(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  made.title = text;
  return made;
}

function space(px) {
  const row = document.createElement("tr");
  row.className = "space";
  const made = document.createElement("td");
  made.style.height = `${px}px`;
  row.append(made);
  return row;
}

// A leading = + - @, wide or not, or what spreadsheets skip before one, would be a formula.
function quoted(text) {
  const safe = /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
