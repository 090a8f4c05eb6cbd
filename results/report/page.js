"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const compareTexts = new Intl.Collator("en", { numeric: true }).compare;
  const CHUNK = 100;
  const NS = "http://www.w3.org/2000/svg";

  /** Make an element; children are elements or texts, which are never read as markup. */
  function h(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  }
  function svg(tag, attributes = {}, ...children) {
    const element = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }
  const say = (text) => { $("#said").textContent = text; };

  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = h("textarea", { class: "hidden" });
      area.value = text;
      (button.closest("dialog") ?? document.body).append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    document.documentElement.dataset.copied = text;
    const before = (button.dataset.label ??= button.textContent);
    button.textContent = "Copied";
    say("Copied");
    setTimeout(() => { button.textContent = before; }, 1200);
  }

  // State: what the reader chose, kept in the hash of the address.

  const state = { theme: "auto", attentions: new Set(), only: false, figure: null, x: null, y: null, panels: null, axes: {}, tables: {} };
  const DIRECTIONS = { asc: 1, desc: -1 };
  const emptyTable = () => ({ sort: null, query: "", filters: {}, hide: new Set(), show: new Set() });

  function readHash() {
    const given = new URLSearchParams(location.hash.slice(1));
    state.theme = ["light", "dark"].includes(given.get("theme")) ? given.get("theme") : "auto";
    const known = new Set(data.attentions.map((each) => each.text));
    state.attentions = new Set(given.getAll("att").filter((text) => known.has(text)));
    state.only = given.get("only") === "1";
    for (const name of ["figure", "x", "y", "panels"]) state[name] = given.get(name);
    state.axes = {};
    for (const figure of data.figures) {
      const choice = given.get(`${figure.name}.axis`);
      if (choice !== null) state.axes[figure.name] = choice;
    }
    for (const name of Object.keys(data.tables)) {
      const own = (state.tables[name] = emptyTable());
      const sort = given.get(`${name}.sort`);
      const at = sort?.lastIndexOf(":") ?? -1;
      if (at > 0 && DIRECTIONS[sort.slice(at + 1)]) own.sort = { column: sort.slice(0, at), direction: sort.slice(at + 1) };
      own.query = given.get(`${name}.q`) ?? "";
      for (const text of given.getAll(`${name}.f`)) {
        const [column, value] = JSON.parse(jsonOr(text));
        if (column !== undefined) (own.filters[column] ??= new Set()).add(value);
      }
      own.hide = new Set(given.getAll(`${name}.hide`));
      own.show = new Set(given.getAll(`${name}.show`));
    }
  }
  function jsonOr(text) {
    try {
      return Array.isArray(JSON.parse(text)) ? text : "[]";
    } catch {
      return "[]";
    }
  }
  function writeHash() {
    const said = new URLSearchParams();
    if (state.theme !== "auto") said.set("theme", state.theme);
    for (const text of state.attentions) said.append("att", text);
    if (state.only) said.set("only", "1");
    for (const name of ["figure", "x", "y", "panels"]) if (state[name] !== null) said.set(name, state[name]);
    for (const [name, choice] of Object.entries(state.axes)) said.set(`${name}.axis`, choice);
    for (const [name, own] of Object.entries(state.tables)) {
      if (own.sort) said.set(`${name}.sort`, `${own.sort.column}:${own.sort.direction}`);
      if (own.query) said.set(`${name}.q`, own.query);
      for (const [column, values] of Object.entries(own.filters))
        for (const value of values) said.append(`${name}.f`, JSON.stringify([column, value]));
      for (const column of own.hide) said.append(`${name}.hide`, column);
      for (const column of own.show) said.append(`${name}.show`, column);
    }
    const hash = said.toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  // Theme

  const THEMES = { auto: "automatic", light: "light", dark: "dark" };
  function showTheme() {
    if (state.theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = state.theme;
    $("#theme span").textContent = THEMES[state.theme];
  }
  $("#theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    state.theme = names[(names.indexOf(state.theme) + 1) % names.length];
    showTheme();
    writeHash();
  });

  // Attentions: one choice for the whole page.

  const looks = new Map(data.attentions.map((each) => [each.text, each]));
  const PATHS = {
    circle: "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z", square: "M-.9,-.9H.9V.9H-.9Z", diamond: "M0,-1.2L.8,0L0,1.2L-.8,0Z",
    "triangle-up": "M0,-1L1,.8H-1Z", "triangle-down": "M0,1L1,-.8H-1Z",
    cross: "M-.35,-1H.35V-.35H1V.35H.35V1H-.35V.35H-1V-.35H-.35Z",
  };
  function glyph(text) {
    const look = looks.get(text);
    if (!look) return "";
    const path = { d: PATHS[look.shape] ?? look.shape, fill: look.filled ? look.colour : "white", stroke: look.colour, "stroke-width": 0.35 };
    return svg("svg", { viewBox: "-1.3 -1.3 2.6 2.6", class: "glyph", "aria-hidden": "true" }, svg("path", path));
  }
  const short = (text) => looks.get(text)?.short ?? text;
  /** The parts of an attention's text, with places in between where a line may end. */
  const breakable = (text) => text.split(/(?<=[(,])/).flatMap((part, place) => (place ? [h("wbr"), part] : [part]));
  const isChosen = (text) => state.attentions.has(text);

  function toggle(text) {
    if (isChosen(text)) state.attentions.delete(text);
    else state.attentions.add(text);
    if (!state.attentions.size) state.only = false;
    chosenChanged();
    say(`${short(text)} ${isChosen(text) ? "selected" : "no longer selected"}`);
  }
  function chosenChanged() {
    writeHash();
    showChosen();
  }
  function showChosen() {
    for (const chip of $$(".chips button")) chip.setAttribute("aria-pressed", isChosen(chip.dataset.attention));
    $("#attentions").classList.toggle("some-chosen", state.attentions.size > 0);
    $("#only").checked = state.only;
    for (const table of Object.values(tables)) state.only || table.wasOnly ? table.refresh() : table.mark();
    figures.chosenChanged();
  }
  for (const { text } of data.attentions)
    $(".chips").append(h("button", { type: "button", "data-attention": text, title: text, "aria-pressed": "false", onclick: () => toggle(text) }, glyph(text), short(text)));
  $("#only").addEventListener("change", (event) => {
    state.only = event.target.checked;
    chosenChanged();
  });
  $("#clear").addEventListener("click", () => {
    state.attentions.clear();
    state.only = false;
    chosenChanged();
    $(".chips button")?.focus();
  });

  // Tables

  const textOf = (column, row) => (column.texts ? column.texts[row] : column.distinct[column.numbers[row]]);
  const isGap = (text) => text === "-" || text === "";

  class Table {
    constructor(root) {
      this.root = root;
      this.name = root.dataset.table;
      const own = data.tables[this.name];
      this.columns = own.columns;
      this.rows = own.rows;
      this.count = own.count;
      this.all = Array.from({ length: this.count }, (_, row) => row);
      this.attention = this.columns.find((column) => column.attention)?.attention;
      for (const column of this.columns) for (const what of ["best", "second"]) column[what] = new Set(column[what]);
      this.body = $("tbody", root);
      this.build();
    }
    get state() {
      return state.tables[this.name];
    }
    get shown() {
      return this.columns.filter((column) => this.isShown(column));
    }
    isShown(column) {
      return column.hidden ? this.state.show.has(column.name) : !this.state.hide.has(column.name);
    }

    build() {
      const search = $("input[type=search]", this.root);
      search.addEventListener("input", () => {
        this.state.query = search.value;
        this.changed();
      });
      for (const button of $$("[data-copy]", this.root))
        button.addEventListener("click", () => copy(button.dataset.copy === "csv" ? this.csv() : this.latex(), button));
      $(".columns .sheet", this.root).append(
        h("fieldset", {}, h("legend", {}, "Shown columns"), this.columns.map((column) =>
          h("label", { title: column.help }, h("input", { type: "checkbox", "data-column": column.name, onchange: (event) => this.setShown(column, event.target.checked) }), column.label))),
      );
      const filters = this.columns.map((column) => this.filter(column)).filter(Boolean);
      $(".filters .sheet", this.root).append(...filters);
      $(".filters", this.root).hidden = !filters.length;
      this.body.addEventListener("keydown", (event) => this.move(event));
      this.body.addEventListener("focusin", (event) => this.stop(event.target.closest("button")));
      this.scroll = $(".scroll", this.root);
      this.scroll.addEventListener("scroll", () => this.more(), { passive: true });
      addEventListener("scroll", () => this.more(), { passive: true });
    }
    filter(column) {
      if (column.opens && column.name !== "reason") return null;
      const values = [...new Set(this.all.map((row) => textOf(column, row)))].sort(compareTexts);
      if (values.length < 2 || values.length > 60) return null;
      return h("fieldset", {}, h("legend", {}, column.label), values.map((value) =>
        h("label", {}, h("input", { type: "checkbox", "data-column": column.name, value, onchange: (event) => this.setFilter(column, value, event.target.checked) }), isGap(value) ? "none" : value)));
    }
    setFilter(column, value, on) {
      const values = (this.state.filters[column.name] ??= new Set());
      on ? values.add(value) : values.delete(value);
      if (!values.size) delete this.state.filters[column.name];
      this.changed();
    }
    setShown(column, on) {
      const [set, other] = column.hidden ? [this.state.show, this.state.hide] : [this.state.hide, this.state.show];
      on === Boolean(column.hidden) ? set.add(column.name) : set.delete(column.name);
      other.delete(column.name);
      this.changed();
    }
    sortBy(column) {
      const first = column.better === "higher" ? "desc" : "asc";
      const second = first === "asc" ? "desc" : "asc";
      const now = this.state.sort?.column === column.name ? this.state.sort.direction : null;
      const next = now === null ? first : now === first ? second : null;
      this.state.sort = next && { column: column.name, direction: next };
      this.changed();
      $$("thead button", this.root).find((button) => button.dataset.column === column.name)?.focus();
      say(next ? `Sorted by ${column.label}, ${next === "asc" ? "ascending" : "descending"}` : "In the original order");
    }
    changed() {
      writeHash();
      this.refresh();
    }

    /** Choose and order rows by the state, and show them. */
    refresh() {
      const { query, filters, sort } = this.state;
      const words = query.toLowerCase().split(/\s+/).filter(Boolean);
      const byColumn = this.columns.filter((column) => filters[column.name]?.size);
      const searched = this.columns.filter((column) => !column.hidden || this.isShown(column));
      this.order = this.all.filter((row) => {
        if (state.only && this.attention && !isChosen(this.attention[row])) return false;
        if (!byColumn.every((column) => filters[column.name].has(textOf(column, row)))) return false;
        if (!words.length) return true;
        const text = searched.map((column) => (column.attention ? `${textOf(column, row)} ${column.attention[row]}` : textOf(column, row))).join(" ").toLowerCase();
        return words.every((word) => text.includes(word));
      });
      const column = sort && this.columns.find((each) => each.name === sort.column);
      if (column) {
        const sign = DIRECTIONS[sort.direction];
        const key = column.values ? (row) => this.numberOf(column, row) : null;
        this.order.sort((a, b) => {
          if (!key) return sign * compareTexts(textOf(column, a), textOf(column, b)) || a - b;
          const [x, y] = [key(a), key(b)];
          if (x === null || y === null) return (x === null) - (y === null) || a - b;
          return sign * (x - y) || a - b;
        });
      }
      this.wasOnly = state.only;
      this.show();
      if (this.name === "results") figures.rowsChanged();
    }
    numberOf(column, row) {
      const value = column.values[row];
      return typeof value === "number" ? value : value === "inf" ? Infinity : value === "-inf" ? -Infinity : null;
    }
    show() {
      const columns = this.shown;
      $("thead", this.root).replaceChildren(h("tr", {}, columns.map((column) => this.header(column))));
      this.body.replaceChildren();
      this.rendered = 0;
      this.scroll.scrollTop = 0;
      $("table", this.root).setAttribute("aria-rowcount", this.order.length + 1);
      this.render(CHUNK);
      if (!this.order.length) this.body.append(h("tr", {}, h("td", { class: "none", colspan: Math.max(columns.length, 1) }, "No row fits the search and the filters.")));
      const total = this.count.toLocaleString("en");
      $("output", this.root).textContent = this.order.length === this.count ? `${total} rows` : `${this.order.length.toLocaleString("en")} of ${total} rows`;
      $(".filters", this.root).classList.toggle("active", Object.keys(this.state.filters).length > 0);
      $("input[type=search]", this.root).value = this.state.query;
      for (const box of $$(".columns input", this.root)) box.checked = this.isShown(this.columns.find((column) => column.name === box.dataset.column));
      for (const box of $$(".filters input", this.root)) box.checked = Boolean(this.state.filters[box.dataset.column]?.has(box.value));
    }
    header(column) {
      const sort = this.state.sort?.column === column.name ? this.state.sort.direction : null;
      const title = [column.help, column.unit && `in ${column.unit}`, column.better && `${column.better} is better`].filter(Boolean).join("; ");
      return h("th", { scope: "col", class: column.right ? "right" : "", "aria-sort": sort && (sort === "asc" ? "ascending" : "descending") },
        h("button", { type: "button", "data-column": column.name, title, onclick: () => this.sortBy(column) }, column.label));
    }
    render(number) {
      const columns = this.shown;
      const end = Math.min(this.rendered + number, this.order.length);
      const fragment = document.createDocumentFragment();
      for (; this.rendered < end; this.rendered++) fragment.append(this.row(this.order[this.rendered], this.rendered, columns));
      this.body.append(fragment);
      if (!$("tbody button[tabindex='0']", this.root)) this.stop($("tbody button", this.root));
    }
    more() {
      if (this.rendered >= this.order.length) return;
      const box = this.scroll.getBoundingClientRect();
      const last = this.body.lastElementChild?.getBoundingClientRect();
      if (last && last.top < Math.min(box.bottom, innerHeight) + 600) this.render(CHUNK);
    }
    row(row, position, columns) {
      const attention = this.attention?.[row];
      const cells = columns.map((column) => this.cell(column, row, columns));
      return h("tr", { "data-row": row, "aria-rowindex": position + 2, class: attention && isChosen(attention) ? "selected" : "" }, cells);
    }
    cell(column, row, columns) {
      const text = textOf(column, row);
      const classes = [column.right && "right", column.best.has(row) && "best", column.second.has(row) && "second", isGap(text) && "gap", text.length > 40 && "long"].filter(Boolean).join(" ");
      if (column.attention) {
        const attention = column.attention[row];
        const button = h("button", { type: "button", class: "name", tabindex: "-1", title: attention, "aria-pressed": isChosen(attention), onclick: () => toggle(attention) }, glyph(attention), h("span", {}, breakable(text)));
        return h("th", { scope: "row", class: classes }, button);
      }
      if (column.opens && !isGap(text) && this.recordsOf(column, row).length)
        return h("td", { class: classes }, h("button", { type: "button", tabindex: "-1", "aria-haspopup": "dialog", "data-opens": column.name, onclick: () => openProvenance(this, column, row) }, text));
      if (column === columns[0] && !this.attention) return h("th", { scope: "row", class: classes }, text);
      return h("td", { class: classes }, isGap(text) ? "–" : text);
    }
    recordsOf(column, row) {
      const found = this.rows[row];
      if (found.records) return found.records;
      const own = found[column.task];
      return own === undefined ? Object.values(found) : [own];
    }
    mark() {
      if (!this.attention) return;
      for (const tr of this.body.rows) {
        const attention = this.attention[tr.dataset.row];
        tr.classList.toggle("selected", isChosen(attention));
        $(".name", tr)?.setAttribute("aria-pressed", isChosen(attention));
      }
    }

    // One cell is a stop of the tab key; arrows go on from there.
    stop(button) {
      if (!button) return;
      for (const each of $$("button[tabindex='0']", this.body)) each.tabIndex = -1;
      button.tabIndex = 0;
    }
    move(event) {
      const cell = event.target.closest("th, td");
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -Infinity], End: [0, Infinity] }[event.key];
      if (!cell || !step || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const [down, across] = step;
      let tr = cell.parentElement;
      let next = null;
      if (down) {
        do {
          if (down > 0 && !tr.nextElementSibling) this.render(CHUNK);
          tr = down > 0 ? tr.nextElementSibling : tr.previousElementSibling;
          next = tr?.cells[cell.cellIndex] && $("button", tr.cells[cell.cellIndex]);
        } while (tr && !next);
      } else {
        const buttons = $$("button", tr);
        const at = buttons.indexOf(event.target.closest("button"));
        next = buttons[Math.max(0, Math.min(buttons.length - 1, at + across))];
      }
      next?.focus();
      next?.scrollIntoView({ block: "nearest", inline: "nearest" });
    }

    // Copies: what is shown, in its order; CSV has numbers at full precision.
    csv() {
      const quoted = (value) => {
        const text = String(value ?? "");
        return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
      };
      const columns = this.shown;
      const lines = [columns.map((column) => column.name), ...this.order.map((row) => columns.map((column) => {
        if (column.attention) return column.attention[row];
        const value = column.values?.[row];
        if (value !== undefined && value !== null && typeof value !== "object") return value;
        const text = textOf(column, row);
        return isGap(text) ? "" : text;
      }))];
      return lines.map((line) => line.map(quoted).join(",") + "\n").join("");
    }
    latex() {
      const special = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "−": "$-$", "<": "$<$", ">": "$>$" };
      const escaped = (text) => text.replace(/[\\~^±−<>]|[&%$#_{}]/g, (each) => special[each] ?? `\\${each}`);
      const columns = this.shown;
      const written = (column, row) => {
        const text = textOf(column, row);
        if (isGap(text)) return "--";
        const inner = column.right ? escaped(text.replace(/^-(?=\d)/, "−")) : escaped(text);
        if (column.best.has(row)) return `\\textbf{${inner}}`;
        return column.second.has(row) ? `\\underline{${inner}}` : inner;
      };
      const lines = this.order.map((row) => `${columns.map((column) => written(column, row)).join(" & ")} \\\\`);
      return [
        "% needs \\usepackage{booktabs}",
        `\\begin{tabular}{${columns.map((column) => (column.right ? "r" : "l")).join("")}}`,
        "\\toprule",
        `${columns.map((column) => escaped(column.label)).join(" & ")} \\\\`,
        "\\midrule",
        ...lines,
        "\\bottomrule",
        "\\end{tabular}",
        "",
      ].join("\n");
    }
  }

  // Provenance: what is behind a number.

  const dialog = $("#provenance");
  let opener = null;
  function openProvenance(table, column, row) {
    opener = document.activeElement;
    const numbers = table.recordsOf(column, row);
    const attention = table.attention?.[row];
    const backbone = table.columns.find((each) => each.name === "backbone");
    const text = textOf(column, row);
    const about = [backbone && textOf(backbone, row), attention && short(attention)].filter(Boolean).join(", ");
    $("#provenance-title").textContent = [column.label, about].filter(Boolean).join(": ");
    const help = [column.help, column.unit && `in ${column.unit}`, column.spread && spreadText(column, row)].filter(Boolean).join("; ");
    $(".body", dialog).replaceChildren(
      h("p", { class: column.right ? "number" : "" }, text),
      help ? h("p", { class: "hint" }, help) : "",
      numbers.length > 1 ? h("p", {}, `It rests on ${numbers.length} records.`) : "",
      ...numbers.map((number) => recordSection(data.records[number])),
    );
    dialog.showModal();
    dialog.scrollTop = 0;
    $("#provenance-title").focus();
  }
  function spreadText(column, row) {
    const [low, high] = [column.low?.[row], column.high?.[row]];
    return typeof low === "number" && typeof high === "number" ? `${column.spread}: ${low.toFixed(2)} to ${high.toFixed(2)}` : "";
  }
  $(".close", dialog).addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => {
    if (opener?.isConnected) opener.focus();
    opener = null;
  });

  const shared = (number) => data.shared[number];
  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  function plainOf(value) {
    if (value === null || value === undefined) return "none";
    if (Array.isArray(value)) return value.map(plainOf).join(", ");
    return isObject(value) ? JSON.stringify(value) : String(value);
  }
  function list(values) {
    return h("dl", {}, Object.entries(values).flatMap(([name, value]) => {
      if (isObject(value) && Object.values(value).length) return [h("dt", {}, name), h("dd", {}, Object.entries(value).map(([k, v]) => `${k} ${plainOf(v)}`).join(", "))];
      return [h("dt", {}, name), h("dd", {}, plainOf(value))];
    }));
  }
  function taskOf(record) {
    return Object.fromEntries(Object.entries(record.task).map(([name, value]) => [name, isObject(value) ? shared(value.shared) : value]));
  }
  function recordSection(record) {
    const task = taskOf(record);
    const backbone = shared(record.backbone);
    const environment = shared(record.environment);
    const { name, recipe, ...circumstances } = task;
    const parts = [h("h3", {}, `Record of ${name}${task.seed === undefined ? "" : `, seed ${task.seed}`}`)];
    const about = { record: `${record.key}.json`, measured: record.created, status: record.status };
    if (record.folder !== undefined) about.folder = shared(record.folder);
    if (environment.commit) about.commit = environment.commit + (environment.dirty ? ", with changes that were not committed" : "");
    if (environment.device_name) about.device = environment.device_name;
    parts.push(list(about));
    if (record.error !== undefined) parts.push(h("h4", {}, "Error"), h("pre", { class: "error", tabindex: "0", "aria-label": "Error" }, shared(record.error)));
    if (record.disturbed) parts.push(h("h4", {}, "Disturbed"), list(record.disturbed));
    parts.push(h("h4", {}, "To repeat it"), ...commandPart(record, environment));
    if (record.run) parts.push(...runPart(record.run));
    parts.push(h("h4", {}, "Certificate"), ...certificatePart(record));
    if (recipe) parts.push(fold("Recipe", list(recipe)));
    if (Object.keys(circumstances).length) parts.push(fold(`Circumstances of ${name}`, list(circumstances)));
    parts.push(fold("Environment", list(environment)));
    const metrics = shared(record.names);
    if (metrics.length) parts.push(fold("All numbers of this record", list(Object.fromEntries(metrics.map((each, place) => [each, record.values[place]])))));
    parts.push(fold("Model", list(backbone)));
    return h("section", { class: "record" }, parts);
  }
  function fold(title, content, open = false) {
    return h("details", { open }, h("summary", {}, title), content);
  }
  function commandPart(record, environment) {
    if (record.command === undefined) return [h("p", { class: "hint" }, "No single command describes this cell: it comes from a sweep in Python. All that it is follows below.")];
    const lines = [environment.commit && !environment.dirty ? `git checkout ${environment.commit}\n` : "", shared(record.command)].join("");
    const button = h("button", { type: "button", onclick: () => copy(lines, button) }, "Copy");
    // A line ends before an option, not within its dashes.
    const parts = lines.split(/(?<= )(--[\w-]+)/).map((part, place) => (place % 2 ? h("span", { class: "whole" }, part) : part));
    return [h("div", { class: "command" }, h("pre", { tabindex: "0", "aria-label": "Command" }, parts), button)];
  }
  function certificatePart(record) {
    if (record.certificates === undefined) return [h("p", { class: "hint" }, "There is none of this attention in this report.")];
    if (!record.certificates.length) return [h("p", { class: "hint" }, "None of this code: the attention was changed after it was tested, or before.")];
    return record.certificates.map(shared).map((each) =>
      fold(verdictOf(each),
        h("table", { class: "laws" }, h("thead", {}, h("tr", {}, ["law", "verdict", "what was tried"].map((text) => h("th", { scope: "col" }, text)))),
          h("tbody", {}, each.laws.map(([law, verdict, detail]) => h("tr", {}, h("th", { scope: "row" }, law), h("td", {}, verdict), h("td", {}, detail)))))));
  }
  function verdictOf({ laws, form, device }) {
    const of = (verdict) => laws.filter((law) => law[1] === verdict);
    const where = `(${form}, on ${device})`;
    if (of("fail").length) return `Fails ${of("fail").map((law) => law[0]).join(", ")} ${where}`;
    return `${of("pass").length} of ${laws.length} laws hold${of("exempt").length ? `, ${of("exempt").length} exempt` : ""} ${where}`;
  }
  function runPart(run) {
    const parts = [h("h4", {}, "After each epoch")];
    if (run.problem) return [...parts, h("p", { class: "problem" }, run.problem)];
    for (const [place, label] of [[1, "top-1 (%)"], [2, "training loss"]]) {
      const points = run.epochs.filter((each) => typeof each[place] === "number").map((each) => [each[0], each[place]]);
      if (points.length) parts.push(curve(points, run.resumed, label));
    }
    const interrupted = run.starts.slice(0, -1);
    parts.push(h("p", {}, run.resumed.length || interrupted.length
      ? `Interrupted and resumed ${Math.max(run.resumed.length, interrupted.length)} times${run.resumed.length ? `: after ${run.resumed.map((each) => each.toFixed(2)).join(", ")} epochs` : ""}.`.replace(" 1 times", " once")
      : "Not interrupted, as far as its run folder says."));
    if (run.starts.length > 1) parts.push(h("ol", {}, run.starts.map((each) => h("li", {}, `${each.job ? `job ${each.job}: ` : ""}${each.ended ?? "died without saying why"}`))));
    parts.push(fold(`Epochs as numbers${run.every > 1 ? `, every ${run.every}` : ""}`,
      h("table", { class: "laws" }, h("thead", {}, h("tr", {}, ["epoch", "top-1", "training loss"].map((text) => h("th", { scope: "col", class: "right" }, text)))),
        h("tbody", {}, run.epochs.map((each) => h("tr", {}, each.map((value) => h("td", { class: "right" }, typeof value === "number" ? String(+value.toPrecision(6)) : plainOf(value)))))))));
    return parts;
  }
  function curve(points, stops, label) {
    const [width, height, left, bottom, top] = [640, 150, 52, 22, 16];
    const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
    const [low, high, last] = [Math.min(...ys), Math.max(...ys), Math.max(...xs, 1)];
    const x = (value) => left + ((width - left - 8) * value) / last;
    const y = (value) => top + (height - top - bottom) * (high === low ? 0.5 : (high - value) / (high - low));
    const say = (value) => String(+value.toPrecision(4));
    return svg("svg", { class: "curve", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${label} by epoch: from ${say(ys[0])} to ${say(ys.at(-1))} in ${points.length} epochs` },
      svg("text", { x: left, y: 11 }, label),
      svg("line", { class: "axis", x1: left, x2: width - 8, y1: height - bottom, y2: height - bottom }),
      svg("text", { x: left - 6, y: y(high) + 4, "text-anchor": "end" }, say(high)),
      high === low ? "" : svg("text", { x: left - 6, y: y(low) + 4, "text-anchor": "end" }, say(low)),
      svg("text", { x: width - 8, y: height - 6, "text-anchor": "end" }, `epoch ${last}`),
      ...stops.map((stop) => svg("line", { class: "stop", x1: x(stop), x2: x(stop), y1: top, y2: height - bottom })),
      svg("path", { class: "line", d: points.map((p, place) => `${place ? "L" : "M"}${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join("") }),
      ...(points.length < 40 ? points.map((p) => svg("circle", { cx: x(p[0]), cy: y(p[1]), r: 2.4, fill: "var(--link)" })) : []));
  }

  // Figures: those of results.figures, and one whose axes the reader chooses.

  /** Draw a specification as a part of the page; return its element and what Vega has made of it. */
  async function embed(given, renderer = "svg") {
    const spec = JSON.parse(JSON.stringify(given).replaceAll("Helvetica, sans-serif", "Helvetica, Narrowed, sans-serif"));
    spec.background = "transparent";
    // On a narrow screen, panels are below each other.
    if (innerWidth < 700 && spec.vconcat) spec.vconcat = spec.vconcat.flatMap((row) => row.hconcat ?? row);
    const holder = h("div");
    const result = await vegaEmbed(holder, spec, { mode: "vega-lite", renderer, actions: { export: true, source: false, compiled: false, editor: false } });
    $("summary", holder)?.setAttribute("aria-label", "Save the figure");
    return { holder, result };
  }
  function put(art, holder) {
    art.replaceChildren(holder);
    const box = $("svg.marks", holder)?.viewBox.baseVal;
    art.classList.toggle("tall", Boolean(box && box.height > 1.4 * box.width));
  }
  /** Do something once an element is about to be seen; for who prints without scrolling, once there is nothing else to do. */
  function whenSeen(element, act) {
    let done = false;
    const once = () => {
      if (done) return;
      done = true;
      act();
    };
    new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && once(), { rootMargin: "400px" }).observe(element);
    if (window.requestIdleCallback) requestIdleCallback(once, { timeout: 3000 });
    else setTimeout(once, 1500);
  }

  const OWN = "explore";
  class Figures {
    constructor() {
      this.table = tables.results;
      this.metrics = this.table.columns.filter((column) => column.opens && column.right && column.values.some((value) => typeof value === "number"));
      this.list = [];
      if (window.vegaEmbed) this.list.push(...data.figures);
      if (window.vegaEmbed && this.metrics.length > 1) this.list.push({ name: OWN, title: "Any two numbers" });
      this.art = $("#art");
      this.zoom = 1;
      this.seen = false;
      this.drawn = 0;
      for (const figure of this.list)
        $(".tabs").append(h("button", { type: "button", role: "tab", id: `tab-${figure.name}`, "aria-controls": "panel", "data-figure": figure.name, onclick: () => this.choose(figure.name) }, figure.title));
      $(".tabs").addEventListener("keydown", (event) => this.move(event));
      whenSeen(this.art, () => {
        this.seen = true;
        if (this.figure) this.draw();
      });
      addEventListener("resize", () => this.later());
      addEventListener("keydown", (event) => { if (event.key === "Escape") this.enlarge(false); });
      if (!this.list.length) this.art.replaceChildren("There is nothing to draw here.");
      this.restore();
    }
    get figure() {
      return this.list.find((figure) => figure.name === state.figure) ?? this.list[0];
    }
    metric(name, ...others) {
      return [name, ...others].map((each) => this.metrics.find((column) => column.name === each)).find(Boolean);
    }
    /** What is drawn across: the reader's choice, or else a usual cost that a row has beside the other number. */
    get x() {
      const { y } = this;
      const drawable = (column) => column && column !== y && this.table.all.some((row) => typeof column.values[row] === "number" && typeof y.values[row] === "number");
      const usual = ["gmacs", "params_m", "latency_ms_p50", "train_loss"].map((name) => this.metric(name));
      return this.metric(state.x) ?? [...usual, ...this.metrics].find(drawable) ?? this.metrics.find((column) => column !== y);
    }
    get y() {
      return this.metric(state.y, "top1", "train_top1", "evaluate_top1", "top1_ema", "images_per_s") ?? this.metrics[0];
    }
    get byBackbone() {
      return (state.panels ?? "backbone") === "backbone";
    }
    choose(name) {
      state.figure = name;
      this.zoom = 1;
      writeHash();
      this.restore();
      $(`#tab-${name}`).focus();
    }
    move(event) {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const at = this.list.indexOf(this.figure);
      this.choose(this.list[(at + step + this.list.length) % this.list.length].name);
    }
    /** Show the controls of the chosen figure, and draw it once it is seen. */
    restore() {
      if (!this.figure) return;
      for (const tab of $$(".tabs button")) {
        const on = tab.dataset.figure === this.figure.name;
        tab.setAttribute("aria-selected", on);
        tab.tabIndex = on ? 0 : -1;
      }
      $("#panel").setAttribute("aria-labelledby", `tab-${this.figure.name}`);
      $("#axes").replaceChildren(...this.controls());
      if (this.seen) this.draw();
    }
    controls() {
      const select = (label, choices, chosen, change) =>
        h("label", {}, label, h("select", { onchange: (event) => change(event.target.value) }, choices.map(([value, text]) => h("option", { value, selected: value === chosen }, text))));
      const set = (name) => (value) => {
        state[name] = value;
        this.zoom = 1;
        writeHash();
        this.draw();
      };
      const enlarge = h("button", { type: "button", onclick: () => this.enlarge(!this.art.classList.contains("large")) }, "Enlarge");
      if (this.figure.name === OWN) {
        const choices = this.metrics.map((column) => [column.name, column.label]);
        const zoomed = (factor) => () => {
          this.zoom = factor ? this.zoom * factor : 1;
          this.draw();
        };
        return [
          select("Across", choices, this.x.name, set("x")),
          select("Up", choices, this.y.name, set("y")),
          select("Panels", [["backbone", "one per backbone"], ["one", "one for all"]], this.byBackbone ? "backbone" : "one", set("panels")),
          h("span", { class: "spring" }),
          h("button", { type: "button", "aria-label": "Zoom in", onclick: zoomed(1 / 1.5) }, "+"),
          h("button", { type: "button", "aria-label": "Zoom out", onclick: zoomed(1.5) }, "−"),
          h("button", { type: "button", onclick: zoomed(0) }, "Reset zoom"),
        ];
      }
      const { name, axis, choices } = this.figure;
      const labels = choices.map((choice) => [choice.label, choice.label]);
      const change = (value) => {
        state.axes[name] = value;
        writeHash();
        this.draw();
      };
      return [...(choices.length > 1 ? [select(axis, labels, this.choice.label, change)] : []), h("span", { class: "spring" }), enlarge];
    }
    get choice() {
      return this.figure.choices.find((choice) => choice.label === state.axes[this.figure.name]) ?? this.figure.choices[0];
    }
    enlarge(on) {
      this.art.classList.toggle("large", on);
      const button = $$("#axes button").find((each) => ["Enlarge", "Smaller"].includes(each.textContent));
      if (on) {
        this.art.prepend(h("button", { type: "button", class: "smaller", onclick: () => this.enlarge(false) }, "Close"));
        $(".smaller").focus();
      } else if ($(".smaller")) {
        $(".smaller").remove();
        button?.focus();
      }
    }
    later() {
      clearTimeout(this.timer);
      if (this.seen && this.figure?.name === OWN) this.timer = setTimeout(() => this.draw(), 120);
    }
    rowsChanged() {
      this.later();
    }
    chosenChanged() {
      if (this.figure?.name === OWN) this.later();
      else this.dim();
    }

    async draw() {
      const turn = ++this.drawn;
      const own = this.figure.name === OWN;
      const spec = own ? this.spec() : this.choice.spec;
      $("#art-notes").replaceChildren(...(own ? this.ownNotes() : this.choice.notes).map((note) => h("li", {}, note)));
      if (spec === null) {
        this.art.replaceChildren("No row of the table has both numbers.");
        return;
      }
      this.result?.finalize();
      const { holder, result } = await embed(spec, own && this.table.order.length > 1500 ? "canvas" : "svg");
      if (turn !== this.drawn) return result.finalize();
      this.result = result;
      put(this.art, holder);
      result.view.addEventListener("click", (_, item) => {
        for (const attention of this.attentionsOf(item).slice(0, 1)) toggle(attention);
      });
      if (!own) this.dim();
      this.art.dataset.shown = own ? `${this.x.name} ${this.y.name}` : `${this.figure.name} ${this.choice.label}`;
    }
    /** The attentions that a mark of a figure is about: by its data, or by its colour. */
    attentionsOf(item) {
      const datum = item?.datum ?? {};
      if (datum.attention && looks.has(datum.attention)) return [datum.attention];
      const named = this.choice?.names?.[datum.label];
      if (named) return named;
      const colour = item?.stroke ?? datum.colour;
      return data.attentions.filter((each) => each.colour === colour).map((each) => each.text);
    }
    /** In a drawn figure, all but the selected attentions step back. */
    dim() {
      for (const element of $$("svg.marks path, svg.marks text, svg.marks line", this.art)) {
        const item = element.__data__;
        const found = item ? this.attentionsOf(item) : [];
        element.classList.toggle("dim", state.attentions.size > 0 && found.length > 0 && !found.some(isChosen));
      }
    }

    ownNotes() {
      const spread = this.y.spread ? [`Vertical lines: ${this.y.spread}.`] : [];
      return ["Rows of the table above, as they are filtered. A click on a point selects its attention; dragging moves the axes, and the wheel with Ctrl or ⌘ zooms. Points of one panel may differ in their circumstances: filter the table to compare like with like.", ...spread];
    }
    spec() {
      const { x, y } = this;
      const backbones = this.table.columns.find((column) => column.name === "backbone");
      const attentions = this.table.attention;
      const points = [];
      for (const row of this.table.order) {
        const [across, up] = [x.values[row], y.values[row]];
        if (typeof across !== "number" || typeof up !== "number") continue;
        const look = looks.get(attentions[row]);
        const faded = state.attentions.size > 0 && !isChosen(attentions[row]);
        points.push({
          x: across, y: up, attention: attentions[row], name: short(attentions[row]), backbone: textOf(backbones, row),
          xText: textOf(x, row), yText: textOf(y, row), colour: look.colour, fill: look.filled ? look.colour : "white",
          shape: look.shape, opacity: faded ? 0.13 : 1, ...this.ends(y, row),
        });
      }
      if (!points.length) return null;
      const groups = this.byBackbone ? Map.groupBy(points, (point) => point.backbone) : new Map([["", points]]);
      const room = this.art.clientWidth - 70;
      const columns = Math.max(1, Math.min(groups.size, Math.floor(room / 340)));
      const width = Math.max(180, Math.floor(room / columns) - 64);
      const panels = [...groups].sort((a, b) => compareTexts(a[0], b[0])).map(([title, rows], place) => this.panelSpec(title, rows, place, width));
      return { $schema: "https://vega.github.io/schema/vega-lite/v6.json", description: `${y.label} over ${x.label}`, columns, concat: panels, config: data.theme.config };
    }
    ends(column, row) {
      const [low, high] = [column.low?.[row], column.high?.[row]];
      return typeof low === "number" && typeof high === "number" ? { low, high } : {};
    }
    axis(column, values, ends) {
      const all = [...values, ...ends];
      const [low, high] = [Math.min(...all), Math.max(...all)];
      const log = low > 0 && high / low > 25;
      const [inner, outer] = log ? [Math.log10, (value) => 10 ** value] : [(value) => value, (value) => value];
      const [a, b] = [inner(low), inner(high)];
      const margin = 0.08 * (b - a) || Math.abs(b) * 0.05 || 1;
      const [middle, half] = [(a + b) / 2, ((b - a) / 2 + margin) * this.zoom];
      return { scale: { domain: [outer(middle - half), outer(middle + half)], nice: false, ...(log ? { type: "log" } : { zero: false }) }, axis: { title: column.unit === "%" ? `${column.label} (%)` : column.label, tickCount: 5, labelOverlap: true } };
    }
    panelSpec(title, rows, place, width) {
      const { x, y } = this;
      const ends = rows.flatMap((row) => (row.low === undefined ? [] : [row.low, row.high]));
      const across = { field: "x", type: "quantitative", ...this.axis(x, rows.map((row) => row.x), []) };
      const up = { field: "y", type: "quantitative", ...this.axis(y, rows.map((row) => row.y), ends) };
      const literal = (field, type = "nominal") => ({ field, type, scale: null, legend: null });
      const colours = { stroke: literal("colour"), opacity: literal("opacity", "quantitative") };
      const rule = { type: "rule", strokeWidth: 1.2, clip: true };
      const layers = [];
      if (ends.length) layers.push({ mark: rule, encoding: { x: across, y: { ...up, field: "low" }, y2: { field: "high" }, ...colours } });
      const tooltip = [["name", "attention"], ["backbone", "backbone"], ["xText", x.label], ["yText", y.label]].map(([field, heading]) => ({ field, title: heading, type: "nominal" }));
      const wheel = "wheel![event.ctrlKey || event.metaKey]";
      layers.push({
        params: [{ name: `zoom${place}`, select: { type: "interval", zoom: wheel }, bind: "scales" }],
        mark: { type: "point", size: 70, strokeWidth: 1.6, clip: true, cursor: "pointer" },
        encoding: { x: across, y: up, fill: literal("fill"), shape: literal("shape"), ...colours, tooltip },
      });
      return { title, width, height: Math.round(Math.min(width * 0.8, 300)), data: { values: rows }, layer: layers };
    }
  }

  // Further figures, of files: as they are.

  for (const art of $$("[data-further]"))
    whenSeen(art, async () => {
      const { holder } = await embed(data.further[art.dataset.further]);
      put(art, holder);
      // What is drawn on a photograph is not turned over in the dark.
      art.classList.toggle("photo", $("image", holder) !== null);
    });

  // Start

  const tables = {};
  readHash();
  for (const root of $$("[data-table]")) tables[root.dataset.table] = new Table(root);
  const figures = new Figures();
  showTheme();
  for (const table of Object.values(tables)) table.refresh();
  showChosen();
  document.documentElement.dataset.ready = String(Math.round(performance.now()));

  addEventListener("hashchange", () => {
    readHash();
    showTheme();
    for (const table of Object.values(tables)) table.refresh();
    figures.restore();
    showChosen();
  });
  for (const button of $$("[data-copy-of]"))
    button.addEventListener("click", () => copy($$("p", document.getElementById(button.dataset.copyOf)).map((p) => p.textContent).join("\n\n") || document.getElementById(button.dataset.copyOf).textContent, button));
  // Links within the page leave the hash alone.
  for (const link of $$('nav a, .skip'))
    link.addEventListener("click", (event) => {
      const target = document.getElementById(link.getAttribute("href").slice(1));
      event.preventDefault();
      target.scrollIntoView();
      target.focus({ preventScroll: true });
    });
  // Menus close by Escape and by a click elsewhere.
  addEventListener("keydown", (event) => {
    const open = event.key === "Escape" && event.target.closest?.("details.menu[open]");
    if (open) {
      open.open = false;
      $("summary", open).focus();
    }
  });
  addEventListener("click", (event) => {
    for (const menu of $$("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  addEventListener("beforeprint", () => {
    for (const table of Object.values(tables)) table.render(2000);
    for (const notes of $$("details.notes")) notes.open = true;
  });
})();
