// The page's own thread: photographs come in one after the other, their maps go into the viewer.
(() => {
  "use strict";
  const $ = (selector) => document.querySelector(selector);
  const text = (id) => document.getElementById(id).textContent;
  const facts = JSON.parse(text("facts")), { limits } = facts;
  const root = $(".rv"), { viewer } = root;
  const photographs = [], shown = []; // all that were given; those that have a map, in their order
  let working, wanted, current;

  const code = new Blob([text("fov.js"), text("png.js"), text("worker.js")], { type: "text/javascript" });
  const worker = new Worker(URL.createObjectURL(code));
  const packed = ["engine", "wasm", "network"].map((id) => [id, text(id)]);
  worker.postMessage({ facts, ...Object.fromEntries(packed) });
  for (const [id] of packed) document.getElementById(id).remove(); // megabytes

  worker.onmessage = ({ data }) => {
    if (data.started) return document.body.setAttribute("data-started", "");
    if (data.broken) {
      $("#trouble").textContent = `The network could not be started in this browser (${data.broken}). ` +
        "It needs WebAssembly with SIMD: any browser from 2023 on has it.";
      return;
    }
    const photograph = photographs[data.id];
    if (data.progress) return tell(photograph, `${data.progress} …`);
    const seconds = ((performance.now() - photograph.began) / 1000).toFixed(1);
    if (data.problem) {
      photograph.problem = data.problem;
      tell(photograph, data.problem);
    } else {
      Object.assign(photograph, data.result);
      const doubts = flagsOf(photograph, photograph.marks.chosen.level);
      // commands/folder.py: promise. As sure of itself as a good map may be one that means nothing.
      if (doubts.some((words) => limits.meaningless.includes(words))) {
        photograph.best = null;
        photograph.scores.dice.fill(null);
      }
      photograph.note = [...doubts, promiseOf(photograph)].join("; ");
      tell(photograph, `done, ${seconds} s, ${promiseOf(photograph)}` +
        (doubts.length ? `. Look at it: ${doubts.join("; ")}` : ""));
      show(photograph);
    }
    working = undefined;
    next();
  };
  worker.onerror = (event) => { $("#trouble").textContent = `The page stopped: ${event.message}. Open it anew.`; };

  function tell(photograph, words) {
    photograph.row.querySelector("span").textContent = words;
    photograph.row.dataset.state = photograph.problem ? "problem" : photograph.area ? "done" : "waiting";
  }

  function take(files) {
    for (const file of files) {
      const row = document.createElement("li"), name = document.createElement("b");
      name.textContent = file.name;
      row.append(name, document.createElement("span"));
      $("#list").append(row);
      const photograph = { id: photographs.length, file, row, views: $("#mirror").checked ? 4 : 1 };
      photographs.push(photograph);
      tell(photograph, "waiting");
    }
    next();
  }
  function next() {
    if (working) return;
    working = photographs.find((one) => !one.problem && !one.area);
    if (!working) return;
    working.began = performance.now();
    worker.postMessage({ id: working.id, file: working.file, views: working.views });
  }

  // ---- numbers -----------------------------------------------------------------------------------
  // The expected Dice at its greatest, with the ends of its interval where one is known.
  function boundsOf({ best }) {
    if (best === null) return ["", "", ""];
    const half = facts.promise;
    return half === null ? [best, "", ""] : [best, Math.max(0, best - half), Math.min(1, best + half)];
  }
  function promiseOf(photograph) {
    const [dice, low, high] = boundsOf(photograph).map((n) => n === "" ? n : n.toFixed(2));
    return dice === "" ? "no expected Dice: look at it" : `expected Dice ${dice}` + (low && ` (${low} to ${high})`);
  }
  // commands/quality.py: map_flags, after those of the photograph.
  function flagsOf({ flags, histogram, scores }, level) {
    let sure = 0, doubt = 0;
    histogram.forEach((n, k) => { const p = k / 65535; sure += n * p; doubt += n * p * (1 - p); });
    const share = scores.density[level], found = [...flags];
    if (share < limits.shares[0]) found.push("hardly any vessels");
    if (share > limits.shares[1]) found.push("too many vessels");
    if (doubt / Math.max(sure, 1e-6) > limits.doubt) found.push("unsure");
    return found;
  }

  // ---- the viewer --------------------------------------------------------------------------------
  const inflated = async (blob) => new Uint8Array(
    await new Response(blob.stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());

  function show(photograph) {
    const { file, width, height, levels, marks, scores, views, diameter, note, codes } = photograph;
    photograph.item = {
      name: file.name, width, height, scale: 1, levels, marks, scores, annotation: null,
      note: `${note}; seen ${diameter} pixels across${views > 1 ? ", four mirror images averaged" : ""}`,
      photograph: URL.createObjectURL(file), load: async () => ({ kinds: await inflated(codes), exact: true }),
    };
    shown.push(photograph);
    const button = document.createElement("button");
    button.textContent = "show";
    button.setAttribute("aria-label", `show ${file.name}`);
    button.onclick = () => { open(photograph); root.scrollIntoView({ block: "nearest" }); };
    photograph.row.append(button);
    if (wanted) place(); else open(photograph);
  }
  async function open(photograph) {
    wanted = photograph;
    $("#results").hidden = false;
    place();
    await viewer.choose(photograph.item);
    if (wanted === photograph) current = photograph;
  }
  function place() {
    const at = shown.indexOf(wanted);
    viewer.place.textContent = `${at + 1} of ${shown.length}`;
    viewer.ends(shown, at);
  }
  viewer.step = (by) => { const next = shown[shown.indexOf(wanted) + by]; if (next) open(next); };

  // ---- what is saved -----------------------------------------------------------------------------
  // Where the slider stands, on the track of any photograph: at the same mark, or nearest.
  const level = ({ levels, marks } = current) => {
    const at = +root.querySelector(".rv-threshold").value, own = current.levels[at];
    const kind = Object.keys(marks).find((name) => current.marks[name].level === at);
    return kind ? marks[kind].level : levels.reduce(
      (best, one, i) => (Math.abs(one - own) < Math.abs(levels[best] - own) ? i : best), 0);
  };
  const stem = (file) => file.name.replace(/\.[^.]*$/, "") || file.name;
  function save(content, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }
  $("#save-vessels").onclick = async () => {
    const { codes, width, height, file } = current, at = level();
    const vessels = (await inflated(codes)).map((code) => (code > at ? 255 : 0));
    save(await png(vessels, width, height, 8), `${stem(file)}_vessels.png`);
  };
  $("#save-probability").onclick = () => save(current.probability, `${stem(current.file)}_probability.png`);
  $("#save-measures").onclick = () => {
    // A spreadsheet would run a text that begins like a formula.
    const cell = (value) => (typeof value === "number" ? `${+value.toFixed(4)}` :
      `"${value.replace(/^(?='*[=+\-@\t\r\n])/, "'").replaceAll('"', '""')}"`);
    const rows = photographs.filter((one) => one.area || one.problem).map((one) => {
      const { file, problem, width, height, area, scores, views, diameter } = one;
      if (problem) return [file.name, "failed", ...Array(12).fill(""), problem];
      const at = level(one);
      return [file.name, "done", flagsOf(one, at).join("; "), width, height, area, area / (width * height),
        scores.density[at], one.levels[at], ...boundsOf(one), diameter, views, ""];
    });
    const head = "name,status,flags,width,height,fov_area,fov_share,vessel_share,threshold," +
      "expected_dice,expected_dice_low,expected_dice_high,network_diameter,mirror_images,message";
    const lines = [head, ...rows.map((row) => row.map(cell).join(","))];
    save(new Blob(["\ufeff", lines.join("\r\n"), "\r\n"], { type: "text/csv" }), "measures.csv");
  };

  // ---- what comes in -----------------------------------------------------------------------------
  $("#files").onchange = (event) => { take([...event.target.files]); event.target.value = ""; };
  document.ondragover = (event) => { event.preventDefault(); document.body.classList.add("over"); };
  document.ondragleave = (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); };
  document.ondrop = (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    take([...event.dataTransfer.files]);
  };
})();
