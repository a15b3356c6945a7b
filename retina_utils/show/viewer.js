// The threshold viewer: starts every .rv block of the page that has not been started yet.
// A block holds its data as JSON; pictures are data URIs. Nothing is fetched, nothing is stored.
// A page with more photographs than fit into a block gives them one by one: root.viewer.choose(item);
// an item that brings load() gives its pixels itself.
(() => {
  "use strict";
  const VIEWS = {
    photograph: { label: "Photograph", opacity: 0, key: [] },
    probability: { label: "Probability", opacity: 100, key: [["#000004", "0"], ["#b73779", "0.5"], ["#fcfdbf", "1"]] },
    vessels: { label: "Vessels", opacity: 100, key: [["#fff", "decided to be vessel"]] },
    overlay: { label: "Overlay", opacity: 80, key: [["#56b4e9", "decided to be vessel"]] },
    errors: {
      label: "Errors", opacity: 100,
      key: [["#ebebeb", "hit"], ["#e69f00", "false alarm"], ["#56b4e9", "miss"]],
    },
  };
  const rgba = (r, g, b, a = 255) => ((a << 24) | (b << 16) | (g << 8) | r) >>> 0; // little-endian
  const BLACK = rgba(0, 0, 0), WHITE = rgba(255, 255, 255), DARK = rgba(31, 31, 31);
  const HIT = rgba(235, 235, 235), FALSE_ALARM = rgba(230, 159, 0), SKY = rgba(86, 180, 233);

  // One colour for each of the 512 kinds of pixel: code 0..255, plus 256 where annotated.
  // Code 0 is outside the field of view; code c > level is decided to be vessel.
  function palette(view, level, ramp, levels) {
    const colours = new Uint32Array(512);
    for (let kind = 0; kind < 512; kind++) {
      const code = kind & 255, annotated = kind > 255, vessel = code > level;
      if (view === "overlay") colours[kind] = vessel ? SKY : 0;
      else if (code === 0) colours[kind] = BLACK;
      else if (view === "vessels") colours[kind] = vessel ? WHITE : BLACK;
      else if (view === "probability") {
        const at = Math.min(255, Math.floor(256 * levels[Math.min(code, levels.length) - 1]));
        const hex = parseInt(ramp[at].slice(1), 16);
        colours[kind] = rgba(hex >> 16, (hex >> 8) & 255, hex & 255);
      } else if (annotated) colours[kind] = vessel ? HIT : SKY;
      else colours[kind] = vessel ? FALSE_ALARM : DARK;
    }
    return colours;
  }

  // The values of a grey PNG exactly as they were written: no colour management, no alpha.
  async function decode(uri) {
    const bytes = Uint8Array.from(atob(uri.split(",")[1]), (c) => c.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }), {
      colorSpaceConversion: "none", premultiplyAlpha: "none",
    });
    const canvas = document.createElement("canvas");
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height).data;
  }

  async function kinds(item) {
    const codes = await decode(item.codes);
    const annotation = item.annotation ? await decode(item.annotation) : null;
    const result = new Uint16Array(codes.length / 4);
    let sum = 0;
    for (let i = 0; i < result.length; i++) {
      sum += codes[4 * i];
      result[i] = codes[4 * i] | (annotation && annotation[4 * i] ? 256 : 0);
    }
    return { kinds: result, exact: sum === item.sum };
  }

  const TEMPLATE = `
    <div>
      <div class="rv-stage" tabindex="0" role="group"
        aria-label="Picture. Plus and minus zoom, arrow keys move, 0 shows the whole photograph,
          n and p go to the next and the previous one.">
        <div class="rv-sheet"><img alt="" draggable="false"><canvas></canvas></div>
      </div>
      <div class="rv-bar">
        <span class="rv-key"></span>
        <span class="rv-group">
          <span class="rv-scale" aria-live="polite"></span>
          <button type="button" data-zoom="out" aria-label="Zoom out">−</button>
          <button type="button" data-zoom="in" aria-label="Zoom in">+</button>
          <button type="button" data-zoom="native" title="The photograph at 100 %">1:1</button>
          <button type="button" data-zoom="fit" title="The whole photograph">Fit</button>
        </span>
      </div>
    </div>
    <div class="rv-side">
      <div>
        <label class="rv-picking"><span class="rv-label">Photograph</span>
          <select class="rv-pick"></select></label>
        <p class="rv-full"></p>
        <span class="rv-group rv-steps">
          <button type="button" data-step="-1" title="Key p">‹ Previous</button>
          <button type="button" data-step="1" title="Key n">Next ›</button>
          <span class="rv-place" aria-live="polite"></span>
        </span>
      </div>
      <div>
        <div class="rv-head"><span class="rv-label">Threshold</span>
          <output class="rv-value"></output></div>
        <div class="rv-plot"><svg viewBox="0 0 1 1" preserveAspectRatio="none" role="img">
          <path class="rv-frame" d="M0 1H1"/><g class="rv-ticks"></g><path class="rv-case"/>
          <path class="rv-split"/><path class="rv-now"/></svg></div>
        <input class="rv-threshold" type="range" min="0" step="1" aria-label="Threshold"
          data-lm-suppress-shortcuts="true">
        <div class="rv-marks"></div>
      </div>
      <div class="rv-group rv-views" role="group" aria-label="View"></div>
      <label><span class="rv-label">Opacity</span>
        <input class="rv-opacity" type="range" min="0" max="100" step="1"
          aria-label="Opacity over the photograph" data-lm-suppress-shortcuts="true"></label>
      <table>
        <thead><tr><th scope="col">Inside the field of view</th>
          <th scope="col"><span class="rv-dot" style="border-color: var(--rv-case)"></span>this
            photograph</th>
          <th scope="col"><span class="rv-dot" style="border-color: var(--rv-split)"></span><span
            class="rv-whole"></span></th></tr></thead>
        <tbody></tbody>
      </table>
    </div>
    <p class="rv-note" style="grid-column: 1 / -1"></p>`;

  function start(root) {
    root.dataset.ready = "true";
    const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    const app = document.createElement("div");
    app.className = "rv-app";
    app.innerHTML = TEMPLATE; // constant text; names from data only ever enter as textContent
    const $ = (selector) => app.querySelector(selector);
    const make = (parent, tag, text, properties = {}) => {
      const node = Object.assign(document.createElement(tag), properties);
      node.append(text);
      parent.append(node);
      return node;
    };
    const stage = $(".rv-stage"), sheet = $(".rv-sheet"), photo = $("img"), canvas = $("canvas");
    const slider = $(".rv-threshold"), opacity = $(".rv-opacity"), context = canvas.getContext("2d");
    const cache = new Map(); // the few last photographs, decoded
    const show = (score) => (score === null ? "–" : score.toFixed(3));
    const value = (at) => (+at.toFixed(3) === at ? at.toFixed(3) : at.toFixed(4));
    let levels, marks, last; // of the photograph, or of all in the block
    let item, pixels, surface, paint, view = "overlay", pending = false, wished = null;
    let scale = 1, x = 0, y = 0, fitted = true;

    // ---- the decision, drawn and scored -------------------------------------------------
    const draw = () => {
      pending = false;
      const began = performance.now(), level = +slider.value;
      const colours = palette(view, level, data.ramp, levels);
      for (let i = 0; i < pixels.length; i++) paint[i] = colours[pixels[i]];
      context.putImageData(surface, 0, 0);
      canvas.style.opacity = opacity.value / 100;
      const marked = Object.values(marks).some((mark) => mark.level === level);
      const shown = marked ? levels[level].toFixed(3) : value(levels[level]);
      $(".rv-value").textContent = shown;
      $(".rv-now").setAttribute("d", `M${level / last} 0V1`);
      Object.keys(data.scores).forEach((name, row) => {
        const cells = app.querySelectorAll("tbody tr")[row].cells;
        cells[1].textContent = show(item.scores[name][level]);
        if (data.whole) cells[2].textContent = show(data.whole[name][level]);
      });
      const score = `${data.scores[data.curve]} ${show(item.scores[data.curve][level])}`;
      slider.setAttribute("aria-valuetext", `${shown}, ${score}`);
      root.dataset.milliseconds = (performance.now() - began).toFixed(2);
    };
    const redraw = () => {
      if (!pending && pixels) requestAnimationFrame(draw);
      pending = Boolean(pixels);
    };
    const curve = (scores) => scores[data.curve].map((score, i) => score === null ? "" :
      `${i ? "L" : "M"}${i / last} ${1 - score}`).join("").replace(/^L/, "M");

    // The marks of a track, and the slider where it stood on the last one: on its mark, or nearest.
    function setTrack(own) {
      const kind = marks ? Object.keys(marks).find((key) => marks[key].level === +slider.value)
        : Object.keys(own.marks)[0];
      const at = levels && levels[slider.value];
      ({ levels, marks } = own);
      last = levels.length - 1;
      slider.max = last;
      slider.value = marks[kind] ? marks[kind].level : levels.reduce(
        (best, level, i) => (Math.abs(level - at) < Math.abs(levels[best] - at) ? i : best), 0);
      $(".rv-ticks").replaceChildren();
      $(".rv-marks").replaceChildren();
      for (const [kind, mark] of Object.entries(marks)) {
        $(".rv-ticks").insertAdjacentHTML("beforeend",
          `<path class="rv-tick rv-tick-${kind}" d="M${mark.level / last} 0V1"/>`);
        const button = make($(".rv-marks"), "button", "", { type: "button" });
        make(button, "i", "", { className: `rv-tick-${kind}` });
        button.append(`${levels[mark.level].toFixed(3)} ${mark.label}`);
        button.onclick = () => { slider.value = mark.level; redraw(); };
      }
      if (data.whole) $(".rv-split").setAttribute("d", curve(data.whole));
    }

    let wanted;
    async function choose(next) {
      wanted = next;
      const found = cache.get(next) || (await (next.load || kinds)(next));
      cache.delete(next); // the last one seen comes last
      cache.set(next, found);
      if (cache.size > 6) cache.delete(cache.keys().next().value);
      if (next !== wanted) return; // another photograph was chosen meanwhile
      const before = item && !fitted && {
        scale: scale * item.scale,
        x: (stage.clientWidth / 2 - x) / (scale * item.width),
        y: (stage.clientHeight / 2 - y) / (scale * item.height),
      };
      item = next;
      pixels = found.kinds;
      setTrack(item.levels ? item : data);
      photo.src = item.photograph;
      photo.alt = `Photograph ${item.name}`;
      canvas.width = item.width;
      canvas.height = item.height;
      surface = context.createImageData(item.width, item.height);
      paint = new Uint32Array(surface.data.buffer);
      sheet.style.width = `${item.width}px`;
      sheet.style.height = `${item.height}px`;
      stage.style.aspectRatio = `${item.width} / ${item.height}`;
      app.querySelector("[data-view='errors']").disabled = !item.annotation;
      if (view === "errors" && !item.annotation) setView("overlay");
      $(".rv-case").setAttribute("d", curve(item.scores));
      $(".rv-note").textContent = [
        data.note, item.note, found.exact ? "" :
          "This browser alters pixel values (a privacy setting?), so the picture may differ " +
          "slightly from the decision; the numbers do not.",
      ].filter(Boolean).join(" ");
      root.dataset.case = item.name;
      root.dataset.exact = found.exact;
      $(".rv-pick").value = data.cases.indexOf(item);
      if (data.cases.length) root.viewer.ends(data.cases, data.cases.indexOf(item));
      $(".rv-full").textContent = item.name === short(item.name) ? "" : item.name;
      if (before) {
        scale = limited(before.scale / item.scale);
        x = stage.clientWidth / 2 - before.x * scale * item.width;
        y = stage.clientHeight / 2 - before.y * scale * item.height;
        place();
      } else fit();
      draw();
    }

    function setView(name) {
      view = name;
      opacity.value = name === "photograph" ? 0 : (wished ?? VIEWS[name].opacity);
      opacity.disabled = name === "photograph";
      for (const button of app.querySelectorAll("[data-view]"))
        button.setAttribute("aria-pressed", button.dataset.view === name);
      $(".rv-key").replaceChildren();
      for (const [colour, text] of VIEWS[name].key) {
        const entry = make($(".rv-key"), "span", "");
        make(entry, "i", "").style.background = colour;
        entry.append(text);
      }
      redraw();
    }

    // ---- zoom and pan ------------------------------------------------------------------
    const fitScale = () =>
      Math.min(stage.clientWidth / item.width, stage.clientHeight / item.height);
    // From the whole photograph, or a small one at 100 %, to sixteenfold.
    const limited = (to) => {
      const fit = fitScale(), native = 1 / item.scale;
      return Math.min(Math.max(16, fit), Math.max(Math.min(fit, native), to));
    };
    const within = (at, room, size) => // smaller than its room: in the middle
      size < room ? (room - size) / 2 : Math.min(0, Math.max(at, room - size));
    const place = () => {
      x = within(x, stage.clientWidth, item.width * scale);
      y = within(y, stage.clientHeight, item.height * scale);
      sheet.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
      sheet.classList.toggle("rv-near", scale >= 2);
      stage.style.touchAction = fitted ? "pan-x pan-y" : "none"; // else a finger scrolls the page
      $(".rv-scale").textContent = `${Math.round(100 * scale * item.scale)} %`;
    };
    const zoom = (to, cx = stage.clientWidth / 2, cy = stage.clientHeight / 2) => {
      const next = limited(to);
      x = cx - ((cx - x) * next) / scale;
      y = cy - ((cy - y) * next) / scale;
      scale = next;
      fitted = next === fitScale();
      place();
    };
    const fit = () => { x = y = 0; scale = fitScale(); fitted = true; place(); };
    const zooms = {
      in: () => zoom(scale * 1.5), out: () => zoom(scale / 1.5), native: () => zoom(1 / item.scale), fit,
    };
    for (const button of app.querySelectorAll("[data-zoom]"))
      button.onclick = zooms[button.dataset.zoom];

    stage.addEventListener("wheel", (event) => {
      // A page must scroll under the pointer: a plain wheel zooms only after a click here.
      if (!event.ctrlKey && document.activeElement !== stage) return;
      const box = stage.getBoundingClientRect();
      event.preventDefault();
      zoom(scale * Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)),
        event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    const fingers = new Map();
    stage.onpointerdown = (event) => {
      fingers.set(event.pointerId, event);
      stage.setPointerCapture(event.pointerId);
    };
    stage.onpointerup = stage.onpointercancel = (event) => fingers.delete(event.pointerId);
    stage.onpointermove = (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
      if (other) {
        const box = stage.getBoundingClientRect();
        const span = (a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY);
        zoom((scale * span(event)) / Math.max(span(before), 1),
          (event.clientX + other.clientX) / 2 - box.left,
          (event.clientY + other.clientY) / 2 - box.top);
      } else {
        x += event.clientX - before.clientX;
        y += event.clientY - before.clientY;
        place();
      }
      fingers.set(event.pointerId, event);
    };
    const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    const keys = { "+": zooms.in, "=": zooms.in, "-": zooms.out, 0: fit };
    stage.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (keys[event.key]) keys[event.key]();
      else if (moves[event.key] && !fitted) {
        x += moves[event.key][0];
        y += moves[event.key][1];
        place();
      } else return;
      event.preventDefault();
    });
    slider.addEventListener("keydown", (event) => {
      const step = { "+": 1, "=": 1, "-": -1 }[event.key];
      if (step) slider.value = +slider.value + step;
      if (step) redraw();
    });
    // Keys that work wherever the focus is in the viewer; a page may add its own.
    const shortcuts = { n: () => step(1), p: () => step(-1) };
    app.addEventListener("keydown", (event) => {
      const plain = !(event.ctrlKey || event.metaKey || event.altKey);
      const typing = event.target.matches("select, [type='text']") && event.key !== "Escape";
      if (plain && !typing && shortcuts[event.key]) shortcuts[event.key]();
      event.stopPropagation(); // JupyterLab would take letters and arrows for its own commands
    });
    new ResizeObserver(() => {
      if (item && stage.clientWidth) (fitted ? fit : zoom)(scale);
    }).observe(stage);

    // ---- the controls ------------------------------------------------------------------
    for (const [name, { label }] of Object.entries(VIEWS)) {
      const button = make($(".rv-views"), "button", label, { type: "button" });
      button.dataset.view = name;
      button.onclick = () => setView(name);
    }
    for (const words of Object.values(data.scores)) {
      const row = $("tbody").insertRow();
      make(row, "th", words).scope = "row";
      row.insertCell();
      if (data.whole) row.insertCell();
    }
    // The middle of a long name goes, since ends differ.
    const short = (name) => (name.length > 46 ? `${name.slice(0, 12)}…${name.slice(-33)}` : name);
    data.cases.forEach((entry, index) => make($(".rv-pick"), "option",
      `${short(entry.name)} · ${entry.size}`, { value: index, title: entry.name }));
    $(".rv-pick").onchange = (event) => choose(data.cases[event.target.value]);
    const step = (by) => root.viewer.step(by);
    for (const button of app.querySelectorAll("[data-step]"))
      button.onclick = () => step(+button.dataset.step);
    $(".rv-picking").hidden = !data.cases.length;
    $("[data-view='errors']").hidden = data.cases.every((entry) => !entry.annotation);
    $(".rv-steps").hidden = data.cases.length === 1;
    for (const cell of app.querySelectorAll("thead th:nth-child(3)")) cell.hidden = !data.whole;
    $(".rv-whole").textContent = data.whole_label;
    $("svg").setAttribute("aria-label",
      `${data.scores[data.curve]} against the threshold, drawn over the slider`);
    slider.oninput = redraw;
    opacity.oninput = () => { wished = +opacity.value; redraw(); };
    root.viewer = {
      choose, shortcuts, stage, place: $(".rv-place"),
      ends: (all, at) => { // not disabled, which would lose the focus
        for (const button of app.querySelectorAll("[data-step]"))
          button.ariaDisabled = !all[at + +button.dataset.step];
      },
      step: (by) => {
        const next = data.cases[data.cases.indexOf(wanted) + by];
        if (next) choose(next);
      },
    };
    const fallback = root.querySelector(".rv-fallback") || document.createElement("p");
    fallback.hidden = true;
    root.append(app);
    setView(view);
    if (data.cases.length) choose(data.cases[0]).catch((error) => {
      app.remove();
      fallback.hidden = false;
      console.error("The threshold viewer could not start:", error);
    });
  }
  for (const root of document.querySelectorAll(".rv:not([data-ready])")) start(root);
})();
