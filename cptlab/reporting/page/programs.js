// The programs: filters, the chosen task and its programs side by side. The address may name a task (#task=ID) or a
// message (#message=W0612).
(async () => {
  "use strict";
  const find = (identifier) => document.getElementById(identifier);
  const packed = find("data");
  if (!packed || !("DecompressionStream" in window)) return; // the examples stay
  const letters = atob(packed.textContent), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i += 1) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = JSON.parse(await new Response(stream).text());
  const [SAMPLE, SCORE, STATUS, REASON, REMARKS, TEXT, MESSAGES] = [0, 1, 2, 3, 4, 5, 6]; // as programs.py packs them

  const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]/gu;
  const seen = (text) => text.replace(UNSEEN, (one) =>
    `[U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);

  // Content reaches the page as text alone, never as HTML.
  function element(name, properties, ...content) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...content.map((one) => (typeof one === "string" ? seen(one) : one)));
    return made;
  }

  const form = find("filters"), pane = find("task"), output = find("left");
  const table = document.querySelector("#tasks table");
  const rows = [...table.tBodies[0].rows]; // in the order of data.tasks
  const indexOf = new Map(rows.map((row, index) => [row, index]));
  const links = rows.map((row, index) => {
    const link = element("a", { href: `#task=${encodeURIComponent(data.tasks[index].id.toWellFormed())}` });
    link.append(...row.cells[0].childNodes);
    row.cells[0].append(link);
    return link;
  });
  const codes = new Set(data.messages.map(([code]) => code));
  for (const cell of document.querySelectorAll("th[scope=row]:first-child")) { // a message in any table leads to its programs
    if (codes.has(cell.textContent)) cell.replaceChildren(element("a", { href: `#message=${cell.textContent}` }, cell.textContent));
  }
  let current = null, fits = () => true; // fits(task, system, program)

  function readFilters() {
    const value = Object.fromEntries(new FormData(form));
    const message = value.message ? data.messages.findIndex(([code]) => code === value.message) : -1;
    const text = value.text?.trim().replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const wanted = text ? new RegExp(text, "iu") : null;
    fits = (task, system, program) =>
      (!value.system || Number(value.system) === system) &&
      (!value.verdict || Number(value.verdict) === program[STATUS]) &&
      (message < 0 || program[MESSAGES].some((one, place) => place % 2 === 0 && one === message)) &&
      (!wanted || wanted.test(task.id) || wanted.test(task.prompt) || wanted.test(program[TEXT]));
    let tasks = 0, programs = 0, all = 0;
    data.tasks.forEach((task, index) => {
      const here = (!value.difficulty || task.difficulty === value.difficulty) && (!value.examples || task.example);
      let found = 0;
      task.programs.forEach((some, system) => some.forEach((program) => {
        all += 1;
        found += here && fits(task, system, program);
      }));
      rows[index].hidden = !found;
      tasks += found > 0;
      programs += found;
    });
    output.textContent = `${tasks} of ${rows.length} tasks and ${programs.toLocaleString("en")} of ` +
      `${all.toLocaleString("en")} programs fit.`;
    if (current !== null) show(current);
  }

  function messageView(code, symbol, times) {
    const category = code[0] in data.categories ? code[0] : "I";
    const name = element("span", { className: "category" }, data.categories[category]);
    return element("span", { className: `message ${category}` }, `${code} ${symbol} ${times > 1 ? `×${times} ` : ""}`, name);
  }

  function programView(program) {
    const lines = program[TEXT].replace(/(\r\n?|\n)$/, "").split(/\r\n?|\n/), at = new Map();
    for (let i = 0; i < program[MESSAGES].length; i += 2) {
      const line = Math.min(Math.max(program[MESSAGES][i + 1], 1), lines.length);
      const counts = at.get(line) ?? at.set(line, new Map()).get(line), message = program[MESSAGES][i];
      counts.set(message, (counts.get(message) ?? 0) + 1);
    }
    return element("ol", { className: "program" }, ...lines.map((line, index) => {
      const found = [...(at.get(index + 1) ?? [])].map(([message, times]) => messageView(...data.messages[message], times));
      return element("li", {}, element("code", {}, line), ...found);
    }));
  }

  // The program of median score, as in the examples; of those that fit the filters where some do.
  function median(programs) {
    const ranked = [...programs].sort((a, b) => a[SCORE] - b[SCORE]);
    return ranked[Math.floor((ranked.length - 1) / 2)];
  }

  function systemView(task, system) {
    const name = data.systems[system], programs = task.programs[system];
    const fitting = programs.filter((program) => fits(task, system, program));
    const some = fitting.length && fitting.length < programs.length;
    const option = (program) => element("option", { value: programs.indexOf(program) },
      `${program[SAMPLE]}: ${program[SCORE].toFixed(2)}, ${data.statuses[program[STATUS]]}`);
    const groups = some
      ? [["fits the filters", fitting], ["does not fit", programs.filter((one) => !fitting.includes(one))]].map(
          ([label, ones]) => element("optgroup", { label }, ...ones.map(option)))
      : programs.map(option);
    const menu = element("select", {}, ...groups), said = element("p", { className: "said" }), place = element("div");
    const draw = () => {
      const program = programs[menu.value];
      const parts = [`score ${program[SCORE].toFixed(2)}`, data.statuses[program[STATUS]], program[REASON], program[REMARKS]];
      said.textContent = seen(parts.filter(Boolean).join(", "));
      place.replaceChildren(programView(program));
    };
    menu.value = programs.indexOf(median(fitting.length ? fitting : programs));
    menu.addEventListener("change", draw);
    draw();
    const part = element("section", {}, element("h4", {}, name),
      element("label", {}, `Sample of ${name} `, menu), said, place);
    part.setAttribute("aria-label", seen(name));
    return part;
  }

  const title = element("h3", { id: "task-name", tabIndex: -1 }), body = element("div");
  title.setAttribute("aria-live", "polite");
  const button = (text, step) => {
    const made = element("button", { type: "button" }, text);
    made.addEventListener("click", () => move(step));
    return made;
  };
  pane.append(element("p", { className: "moves" }, button("Previous task (k)", -1), button("Next task (j)", 1)), title, body);

  function show(index) {
    const task = data.tasks[index];
    current = index;
    rows.forEach((row, place) => row.classList.toggle("current", place === index));
    links.forEach((link, place) => (place === index ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
    title.textContent = seen(`${task.id}${task.difficulty ? `, ${task.difficulty}` : ""}`);
    const prompt = task.prompt ? [element("details", {}, element("summary", {}, "Prompt"), element("pre", {}, task.prompt))] : [];
    const pair = element("div", { className: "pair" }, ...data.systems.map((_, system) => systemView(task, system)));
    body.replaceChildren(...prompt, pair);
    pane.hidden = false;
  }

  // The next task in the order of the table that the filters leave.
  function move(step) {
    const order = [...table.tBodies[0].rows].filter((row) => !row.hidden || indexOf.get(row) === current);
    const place = order.findIndex((row) => indexOf.get(row) === current);
    const next = order[place < 0 ? (step > 0 ? 0 : order.length - 1) : place + step];
    if (!next || next.hidden) return;
    show(indexOf.get(next));
    try { // not in a frame without an address
      history.replaceState(null, "", links[current].getAttribute("href"));
    } catch { /* the page works without it */ }
    pane.scrollIntoView({ block: "start" });
  }

  function follow() {
    const [, code] = location.hash.match(/^#message=(\w+)$/) ?? [];
    if (codes.has(code)) {
      form.elements.message.value = code;
      readFilters();
      find("explorer").scrollIntoView({ block: "start" });
      form.elements.message.focus({ preventScroll: true });
    }
    if (!location.hash.startsWith("#task=")) return;
    let wanted = location.hash.slice("#task=".length);
    try { wanted = decodeURIComponent(wanted); } catch { /* no address of this page: taken as it stands */ }
    const index = data.tasks.findIndex((task) => task.id === wanted);
    if (index < 0) {
      output.textContent = seen(`This page has no task ${wanted}.`);
      return;
    }
    show(index);
    pane.scrollIntoView({ block: "start" });
    title.focus({ preventScroll: true });
  }

  addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=checkbox]), select, textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !find("keys").checked) return;
    if (event.key === "j" || event.key === "k") move(event.key === "j" ? 1 : -1);
    else if (event.key === "/") form.elements.text.focus();
    else return;
    event.preventDefault();
  });
  let waiting;
  form.addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(readFilters, event.target.name === "text" ? 150 : 0);
  });
  form.addEventListener("reset", () => setTimeout(readFilters, 0));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", follow);

  find("explorer").hidden = false;
  find("examples")?.remove();
  readFilters();
  follow();
  document.documentElement.dataset.ready = "true";
})();
