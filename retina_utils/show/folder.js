// The page of a folder: a table of its photographs, and each in the viewer with a judgement.
// Names and notes only ever enter the page as text. Nothing is fetched, nothing is stored.
(() => {
  "use strict";
  const $ = (selector) => document.querySelector(selector);
  const make = (parent, tag, text = "", properties = {}) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(text);
    parent.append(node);
    return node;
  };
  const data = JSON.parse($("#data").textContent);
  const PAGE = 100; // rows at a time
  const numeric = new Set(data.numeric), order = new Intl.Collator(undefined, { numeric: true });
  // What steers a terminal or turns the reading direction is shown as what it is.
  const printable = (text) => text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}]/gu,
    (c) => `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}`);
  const rows = data.rows.map((cells, index) => ({
    ...Object.fromEntries(data.columns.map((key, i) => [key, cells[i]])),
    fingerprint: data.fingerprints[index],
  }));
  const flagsOf = (row) => (row.flags ? row.flags.split("; ") : []);
  const address = (row, end) =>
    `${data.parts}/${row.name}${end}`.split("/").map(encodeURIComponent).join("/");
  const isBound = (key) => /_(low|high)$/.test(key)
    && data.columns.includes(key.replace(/_(low|high)$/, ""));
  const figure = (text) => // three digits that count
    text && !Number.isInteger(+text) && Math.abs(text) < 100 ? (+text).toPrecision(3)
      : text && `${Math.round(text)}`;
  const interval = (row, key) => row[`${key}_low`] && row[`${key}_high`]
    ? `${figure(row[`${key}_low`])} to ${figure(row[`${key}_high`])}` : "";
  const counted = (count, word) => `${count.toLocaleString("en")} ${word}`;

  // ---- judgements ----------------------------------------------------------------------
  for (const row of rows) Object.assign(row, { judged: row.judged || "", note: row.note || "" });
  const unsaved = new Set();
  // As summary.csv is written: no text that a spreadsheet would run.
  const cell = (text) => {
    const runs = /^'*[=+\-@\t\r\n＝＋－＠]/.test(text) && !/^[+-]?\d+(\.\d*)?(e[+-]?\d+)?$/i.test(text);
    return `"${(runs ? `'${text}` : text).replaceAll('"', '""')}"`;
  };
  const tell = () => {
    $("#unsaved").textContent = unsaved.size ? `${unsaved.size} not saved yet` : "";
    $("#save").disabled = !rows.some((row) => row.judged || row.note);
  };
  const judge = (row, what) => {
    Object.assign(row, what);
    unsaved.add(row.name);
    tell();
  };
  $("#save").onclick = () => {
    const told = rows.filter((row) => row.judged || row.note);
    const lines = told.map((row) => [row.name, row.judged, row.note, `#${row.fingerprint}`].map(cell));
    const text = [["photograph", "judged", "note", "map"], ...lines].join("\r\n") + "\r\n";
    const link = make(document.body, "a", "", { download: "judged.csv" });
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.click();
    link.remove();
    unsaved.clear();
    tell();
  };
  addEventListener("beforeunload", (event) => { if (unsaved.size) event.preventDefault(); });

  // ---- the table -----------------------------------------------------------------------
  const controls = $("#controls"), field = controls.elements;
  const SHOWS = {
    "": () => true,
    flagged: (row) => row.status === "done" && row.flags,
    "without a flag": (row) => row.status === "done" && !row.flags,
    failed: (row) => row.status === "failed",
    "left out": (row) => row.status === "left out",
    "not judged": (row) => row.status === "done" && !row.judged,
  };
  for (const word of data.judgements) SHOWS[`judged ${word}`] = (row) => row.judged === word;
  for (const flag of [...new Set(rows.flatMap(flagsOf))].sort())
    SHOWS[`flag: ${flag}`] = (row) => flagsOf(row).includes(flag);
  for (const name of Object.keys(SHOWS)) make(field.show, "option", name || "all", { value: name });
  const measures = data.numeric.filter((key) => !isBound(key));
  const label = (key) => ({ name: "name", flags: "flags", judged: "judgement" })[key] || data.labels[key];
  for (const key of ["name", "flags", "judged", ...measures])
    make(field.sort, "option", label(key), { value: key });
  make(field.measure, "option", "–", { value: "" });
  for (const key of measures) make(field.measure, "option", label(key), { value: key });

  const counts = Object.fromEntries(["done", "failed", "left out"].map((status) =>
    [status, rows.filter((row) => row.status === status).length]));
  make($("#counts"), "span", `${counted(counts.done, "done")}`);
  for (const show of ["flagged", "failed", "left out"]) {
    const count = rows.filter(SHOWS[show]).length;
    if (!count) continue;
    $("#counts").append(", ");
    make($("#counts"), "button", counted(count, show), { type: "button" }).onclick = () => {
      controls.reset();
      field.show.value = show;
      list();
    };
  }

  const HEADS = [["", "Photograph and vessels"], ["name", "Name"], ["flags", "Look at"],
    ...data.shown.map((key) => [key, label(key)]), ["judged", "Judgement"]];
  for (const [key, words] of HEADS) {
    const head = make($("#table thead tr"), "th", "", { scope: "col" });
    if (numeric.has(key)) head.className = "number";
    if (!key) head.textContent = words;
    else make(head, "button", words, { type: "button" }).onclick = () => {
      field.order.value = field.sort.value === key ? -field.order.value : 1;
      field.sort.value = key;
      list();
    };
    head.dataset.key = key;
  }

  let listed = rows, start = 0;
  function list() {
    const words = field.find.value.trim().toLowerCase(), show = SHOWS[field.show.value];
    const key = field.measure.value, by = field.sort.value, sign = +field.order.value;
    const bound = (text) => (text.trim() ? +text.replace(",", ".") : NaN);
    const from = bound(field.from.value), to = bound(field.to.value);
    const fits = (row) => !key || (isNaN(from) && isNaN(to))
      || (row[key] && !(+row[key] < from) && !(+row[key] > to));
    const text = (row) => `${row.name} ${row.flags} ${row.message || ""} ${row.note}`.toLowerCase();
    listed = rows.filter((row) => show(row) && fits(row) && (!words || text(row).includes(words)));
    listed.sort((a, b) => {
      if (!a[by] !== !b[by]) return a[by] ? -1 : 1; // what says nothing comes last
      const found = numeric.has(by) ? a[by] - b[by] : order.compare(a[by], b[by]);
      return sign * found || order.compare(a.name, b.name);
    });
    for (const head of document.querySelectorAll("#table thead th")) {
      if (head.dataset.key === by) head.ariaSort = sign > 0 ? "ascending" : "descending";
      else head.removeAttribute("aria-sort");
    }
    start = 0;
    fill();
  }

  function fill() {
    const body = $("#table tbody"), end = Math.min(start + PAGE, listed.length);
    body.replaceChildren();
    for (const row of listed.slice(start, end)) addRow(body, row);
    const part = end - start < listed.length ? `${start + 1} to ${end} of ` : "";
    $("#shown").textContent = `${part}${counted(listed.length, listed.length === 1 ? "photograph" : "photographs")}`
      + (listed.length < rows.length ? `, of ${rows.length.toLocaleString("en")}` : "");
    $("#pages").hidden = listed.length <= PAGE;
    for (const button of document.querySelectorAll("[data-page]"))
      button.ariaDisabled = +button.dataset.page < 0 ? start === 0 : end === listed.length;
  }

  function addRow(body, row) {
    const line = make(body, "tr"), done = row.status === "done", href = `#${encodeURIComponent(row.name)}`;
    const picture = make(line, "td", "", { className: "picture" });
    if (done) {
      const link = make(picture, "a", "", { href, tabIndex: -1, ariaHidden: "true" });
      make(link, "img", "", { loading: "lazy", alt: "", src: address(row, ".small.jpg") })
        .onerror = (event) => event.target.remove();
    }
    const name = make(line, "th", "", { className: "name", scope: "row" });
    const folder = row.name.slice(0, row.name.lastIndexOf("/") + 1);
    const place = done ? make(name, "a", "", { href }) : name;
    if (folder) make(place, "small", printable(folder));
    place.append(printable(row.name.slice(folder.length)));
    const look = make(line, "td", printable(row.flags || ""), { className: "look" });
    if (!done) {
      make(look, "b", `${row.status}: `);
      look.append(printable(row.message));
      look.colSpan = HEADS.length - 2; // there is nothing else to say
      return;
    }
    for (const key of data.shown) {
      const value = make(line, "td", figure(row[key] || ""), { className: "number" });
      if (row[key]) value.dataset.label = label(key);
      if (interval(row, key)) make(value, "small", interval(row, key));
    }
    const judged = make(line, "td", row.judged, { className: "judged" });
    if (row.note) make(judged, "small", printable(row.note));
  }

  for (const button of document.querySelectorAll("[data-page]"))
    button.onclick = () => {
      if (button.ariaDisabled === "true") return;
      start += PAGE * button.dataset.page;
      fill();
      $("#all").scrollIntoView();
    };
  controls.oninput = list;
  controls.onsubmit = (event) => event.preventDefault();
  controls.onreset = () => setTimeout(list);

  // ---- one photograph --------------------------------------------------------------------
  const root = $(".rv"), viewer = root.viewer, waiting = new Map(), loaded = new Map();
  window.retinaPhotograph = (item) => {
    waiting.get(item.name)?.(item);
    waiting.delete(item.name); // or it would hold the pictures
  };
  function load(row) {
    if (!loaded.has(row.name)) {
      loaded.set(row.name, new Promise((resolve, reject) => {
        const script = make(document.head, "script", "", { src: address(row, ".js") });
        waiting.set(row.name, resolve);
        script.onload = () => script.remove();
        script.onerror = () => { script.remove(); loaded.delete(row.name); reject(new Error("missing")); };
      }));
      if (loaded.size > 8) loaded.delete(loaded.keys().next().value);
    }
    return loaded.get(row.name);
  }

  let current = null, scrolled = 0;
  const steps = () => listed.filter((row) => row.status === "done");
  async function open(row) {
    if (!current) scrolled = scrollY;
    const fresh = !current;
    current = row;
    $("#all").hidden = true;
    $("#one").hidden = false;
    $("#title").textContent = document.title = printable(row.name);
    $("#remarks").textContent = row.flags ? `Look at: ${printable(row.flags)}` : "";
    $("#note").value = row.note;
    for (const radio of document.querySelectorAll("[name=judged]")) radio.checked = radio.value === row.judged;
    $("#facts").replaceChildren();
    for (const key of data.columns) {
      if (!row[key] || isBound(key) || ["name", "status", "flags", "judged", "note"].includes(key)) continue;
      const range = interval(row, key);
      make($("#facts"), "dt", data.labels[key]);
      make($("#facts"), "dd", printable(numeric.has(key) ? figure(row[key]) : row[key])
        + (range ? ` (${range})` : ""));
    }
    const all = steps(), at = all.indexOf(row);
    viewer.place.textContent = at < 0 ? "" : `${at + 1} of ${all.length}`;
    viewer.ends(all, at);
    try {
      const item = await load(row);
      if (current !== row) return;
      root.hidden = false;
      await viewer.choose(item);
    } catch {
      root.hidden = true;
      $("#remarks").textContent = `The pictures of this photograph are not in ${data.parts}. `
        + "Give the command again: it makes them anew.";
    }
    if (fresh) {
      viewer.stage.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    for (const next of [all[at + 1], all[at - 1]]) if (at >= 0 && next) load(next).catch(() => {});
  }
  function close() {
    if (!current) return;
    const name = current.name;
    current = null;
    document.title = `Vessel maps of ${rows.length} photographs`;
    $("#one").hidden = true;
    $("#all").hidden = false;
    const page = start;
    list(); // a judgement may have changed what is listed
    start = page < listed.length ? page : 0;
    fill();
    scrollTo(0, scrolled);
    const link = document.querySelector(`.name a[href="#${CSS.escape(encodeURIComponent(name))}"]`);
    link?.focus({ preventScroll: true });
  }
  const follow = () => {
    let name = "";
    try { name = decodeURIComponent(location.hash.slice(1)); } catch { /* typed by hand */ }
    const row = rows.find((row) => row.name === name && row.status === "done");
    if (row) open(row); else close();
  };
  viewer.step = (by) => {
    const all = steps(), next = all[all.indexOf(current) + by];
    if (!next || !all.includes(current)) return;
    history.replaceState(null, "", `#${encodeURIComponent(next.name)}`);
    open(next);
  };
  const back = () => { if (current) { history.replaceState(null, "", "#"); close(); } };
  $("#back").onclick = back;
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") back(); });
  addEventListener("hashchange", follow);
  [...data.judgements, ""].forEach((word, index) => {
    const choice = make($("#words"), "label");
    const radio = make(choice, "input", "", { type: "radio", name: "judged", value: word });
    choice.append(word || "not judged");
    radio.onchange = () => judge(current, { judged: word });
    if (word) viewer.shortcuts[index + 1] = () => radio.click();
  });
  $("#note").oninput = (event) => judge(current, { note: event.target.value.trim() });
  viewer.shortcuts.Escape = back;
  root.querySelector(".rv-side").append($("#judge"));
  tell();
  list();
  follow();
})();
