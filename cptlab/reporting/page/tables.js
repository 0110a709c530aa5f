// Tables: a click on a heading sorts, a text field filters, and a box that scrolls can be reached by keyboard.
(() => {
  "use strict";
  const FILTERED = 6; // rows above which a table has a text field
  const words = new Intl.Collator("en", { numeric: true });
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

  // The first number of a cell such as "1,234", "+1.76 [+1.50, +2.01]" or "↓2"; null for "–".
  const numberOf = (text) => {
    const found = text.replace("−", "-").replace("↓", "-").match(/[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?/i);
    return found && Number(found[0].replaceAll(",", ""));
  };

  function sort(table, heads, groups, column) {
    const head = heads[column], direction = NEXT[head.getAttribute("aria-sort") ?? "none"];
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", direction);
    const sign = direction === "descending" ? -1 : 1, isNumber = head.className === "number";
    for (const [body, rows] of groups) {
      const keyed = rows.map((row) => [row, row.cells[column]?.textContent ?? ""]);
      const keys = keyed.map(([row, text]) => [row, isNumber ? numberOf(text) : text]);
      if (direction !== "none") {
        keys.sort(([, a], [, b]) => {
          if (a === null || b === null) return (a === null) - (b === null); // no value: always last
          return sign * (isNumber ? a - b : words.compare(a, b));
        });
      }
      body.append(...keys.map(([row]) => row));
    }
    table.dispatchEvent(new Event("sorted"));
  }

  function filter(groups, text, output) {
    const wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0, all = 0;
    for (const [body, rows] of groups) {
      let here = 0;
      for (const row of rows) {
        const content = `${row.textContent} ${body.dataset.heading}`.toLowerCase();
        row.hidden = !wanted.every((word) => content.includes(word));
        here += !row.hidden;
      }
      body.hidden = rows.length > 0 && here === 0;
      left += here;
      all += rows.length;
    }
    output.textContent = wanted.length ? `${left} of ${all} rows` : "";
  }

  for (const box of document.querySelectorAll(".table")) {
    const table = box.querySelector("table"), heads = [...[...table.tHead.rows].at(-1).cells];
    const groups = [...table.tBodies].map((body) => {
      const heading = body.querySelector(".section");
      body.dataset.heading = heading?.textContent ?? "";
      return [body, [...body.rows].filter((row) => !row.contains(heading))];
    });
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sort(table, heads, groups, column));
    });
    const count = groups.reduce((sum, [, rows]) => sum + rows.length, 0);
    if (count > FILTERED && !box.closest("#tasks")) {
      const label = document.createElement("label"), field = document.createElement("input");
      const output = document.createElement("output");
      field.type = "search";
      label.className = "filter";
      field.setAttribute("aria-label", `Filter rows: ${table.caption.textContent}`);
      label.append("Filter rows ", field);
      field.addEventListener("input", () => filter(groups, field.value, output));
      const line = document.createElement("p");
      line.append(label, " ", output);
      box.prepend(line);
    }
  }

  const reach = () => { // a box is a stop of the tab key only where it scrolls
    for (const box of document.querySelectorAll(".wide")) {
      const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
      if (scrolls) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  reach();
  addEventListener("resize", reach);
})();
