// The page's own thread: photographs come in one after the other, their maps go into the viewer.
(() => {
  "use strict";
  const $ = (selector) => document.querySelector(selector);
  const text = (id) => document.getElementById(id).textContent;
  const facts = JSON.parse(text("facts")), { levels, lowest, limits } = facts;
  const photographs = [], shown = []; // all that were given; those in the viewer, in its order
  let viewer, working;

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
      photograph.scores = scoresOf(photograph);
      const doubts = flagsOf(photograph, facts.marks.chosen.level);
      tell(photograph, doubts ? `done, ${seconds} s. Look at it: ${doubts}` : `done, ${seconds} s`);
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
  // At each threshold: how much of the FOV is vessel, and metrics.py's expected Dice. `best` is the
  // greatest at any of the 65,536 thresholds.
  function scoresOf({ histogram, area }) {
    const drawn = new Float64Array(65537), right = new Float64Array(65537);
    for (let k = 65535; k >= 0; k--) {
      drawn[k] = drawn[k + 1] + histogram[k];
      right[k] = right[k + 1] + (histogram[k] * k) / 65535;
    }
    const dice = (k) => (drawn[k] + right[0] ? (2 * right[k]) / (drawn[k] + right[0]) : 0);
    let best = 0;
    for (let k = 0; k < 65536; k++) best = Math.max(best, dice(k));
    return { dice: lowest.map(dice), density: lowest.map((k) => drawn[k] / area), best };
  }
  // commands/quality.py: map_flags, after those of the photograph.
  function flagsOf({ flags, histogram, scores }, level) {
    let sure = 0, doubt = 0;
    histogram.forEach((n, k) => { const p = k / 65535; sure += n * p; doubt += n * p * (1 - p); });
    const share = scores.density[level], found = [...flags];
    if (share < limits.shares[0]) found.push("hardly any vessels");
    if (share > limits.shares[1]) found.push("too many vessels");
    if (doubt / Math.max(sure, 1e-6) > limits.doubt) found.push("unsure");
    return found.join("; ");
  }

  // ---- the viewer --------------------------------------------------------------------------------
  const inflated = async (blob) => new Uint8Array(
    await new Response(blob.stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());

  function show(photograph) {
    const { file, width, height, scores, views } = photograph;
    const entry = {
      name: file.name, label: `${file.name} · ${width} × ${height}`, width, height, scale: 1, scores,
      note: [flagsOf(photograph, facts.marks.chosen.level), views > 1 ? "four mirror images averaged" : ""]
        .filter(Boolean).join("; "),
      photograph: URL.createObjectURL(file), annotation: null,
    };
    const place = shown.push(photograph) - 1;
    const open = document.createElement("button");
    open.textContent = "show";
    open.setAttribute("aria-label", `show ${file.name}`);
    open.onclick = () => { viewer.choose(place); viewer.scrollIntoView({ block: "nearest" }); };
    photograph.row.append(open);
    if (viewer) return viewer.add(entry);
    viewer = document.createElement("div");
    viewer.className = "rv";
    viewer.load = async (index) => ({ kinds: await inflated(shown[index].codes), exact: true });
    const nothing = Object.fromEntries(Object.keys(facts.scores).map((key) => [key, levels.map(() => null)]));
    const data = document.createElement("script"), still = document.createElement("div");
    data.type = "application/json";
    data.textContent = JSON.stringify({ ...facts, cases: [entry], whole: nothing, whole_label: "", note: "" });
    still.className = "rv-fallback";
    viewer.append(still, data);
    $("#viewer").append(viewer);
    const script = document.createElement("script");
    script.textContent = text("viewer.js");
    document.body.append(script);
    $("#results").hidden = false;
  }

  // ---- what is saved -----------------------------------------------------------------------------
  const level = () => +viewer.querySelector(".rv-threshold").value;
  const current = () => shown[+viewer.querySelector(".rv-pick").value];
  const stem = (file) => file.name.replace(/\.[^.]*$/, "") || file.name;
  function save(content, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }
  $("#save-vessels").onclick = async () => {
    const { codes, width, height, file } = current(), at = level();
    const vessels = (await inflated(codes)).map((code) => (code > at ? 255 : 0));
    save(await png(vessels, width, height, 8), `${stem(file)}_vessels.png`);
  };
  $("#save-probability").onclick = () => save(current().probability, `${stem(current().file)}_probability.png`);
  $("#save-measures").onclick = () => {
    // A spreadsheet would run a text that begins like a formula.
    const cell = (value) => (typeof value === "number" ? `${+value.toFixed(4)}` :
      `"${value.replace(/^(?='*[=+\-@\t\r\n])/, "'").replaceAll('"', '""')}"`);
    const rows = photographs.filter((one) => one.area || one.problem).map((one) => {
      const { file, problem, width, height, area, scores, views } = one;
      if (problem) return [file.name, "failed", ...Array(9).fill(""), problem];
      return [file.name, "done", flagsOf(one, level()), width, height, area, area / (width * height),
        scores.density[level()], levels[level()], scores.best, views, ""];
    });
    const head = "name,status,flags,width,height,fov_area,fov_share,vessel_share,threshold," +
      "expected_dice,mirror_images,message";
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
