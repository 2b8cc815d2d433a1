// The answers' table: all rows in memory, only those in view in the page.

const ROW_PX = 26;
const MARGIN_ROWS = 20;
// Browsers cap the height of an element near 33 million pixels.
const HEIGHT_MAX_PX = 30_000_000;
const HIDDEN = new Set(["host_hostname", "host_display_name"]);

export class Answers {
  constructor(region) {
    this.region = region;
    this.head = region.querySelector("thead");
    this.body = region.querySelector("tbody");
    region.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(region);
    this.clear();
  }

  clear() {
    this.columns = ["host"];
    this.rows = [];
    this.view = null;
    this.needle = "";
    this.pending = false;
    this.drawHead();
    this.draw();
  }

  add(host, rows) {
    for (const row of rows) {
      for (const name of Object.keys(row)) {
        if (!HIDDEN.has(name) && !this.columns.includes(name)) {
          this.columns.push(name);
          this.headStale = true;
        }
      }
      const cells = this.columns.map((name, at) => (at === 0 ? host : (row[name] ?? "")));
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
    for (const name of this.columns) row.append(cell("th", name));
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
      this.columns.forEach((_, at) => row.append(cell("td", cells[at] ?? "")));
      return row;
    });
    const above = Math.min((first * ROW_PX) / scale, Math.max(0, height - drawn.length * ROW_PX));
    const below = Math.max(0, height - above - drawn.length * ROW_PX);
    this.body.replaceChildren(space(above), ...drawn, space(below));
  }

  csv() {
    const line = (cells) => this.columns.map((_, at) => quoted(cells[at] ?? "")).join(",");
    return [line(this.columns), ...this.visible.map(line)].join("\r\n") + "\r\n";
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

// A leading = + - @ would be a formula to a spreadsheet.
function quoted(text) {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
