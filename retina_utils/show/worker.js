// The page's other thread: a photograph's file -> its probability. What comes before it in this text
// is fov.js. A Sentence is for the person; anything else that is thrown is a fault of ours.
class Sentence extends Error {}
let ready, facts;

onmessage = async ({ data }) => {
  if (data.engine) {
    facts = data.facts;
    ready = start(data);
    ready.then(() => postMessage({ started: true }), (error) => postMessage({ broken: String(error) }));
    return;
  }
  const say = (progress) => postMessage({ id: data.id, progress });
  try {
    const result = await predict(data.file, data.views, say);
    postMessage({ id: data.id, result }, [result.histogram.buffer]);
  } catch (error) {
    const memory = /memory|alloc|bad_alloc|RangeError/i.test(error);
    postMessage({ id: data.id, problem: error instanceof Sentence ? error.message : memory
      ? "The browser gives no more memory. Close other pages, or reduce the photograph."
      : `The browser failed at it (${error.message ?? error}). Try another browser.` });
  }
};

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const through = (content, stream) => new Response(new Blob([content]).stream().pipeThrough(stream));
const unpacked = async (text) =>
  new Uint8Array(await through(bytesOf(text), new DecompressionStream("gzip")).arrayBuffer());
const deflated = (bytes) => through(bytes, new CompressionStream("deflate")).blob();

async function start({ engine, wasm, network }) {
  const code = new Blob([await unpacked(engine)], { type: "text/javascript" });
  const ort = await import(URL.createObjectURL(code));
  ort.env.wasm.wasmBinary = (await unpacked(wasm)).buffer;
  ort.env.wasm.numThreads = 1; // more need headers that no file has
  ort.env.logLevel = "error";
  return { ort, session: await ort.InferenceSession.create(await unpacked(network)) };
}

async function predict(file, views, say) {
  say("reading");
  const image = await read(file);
  if (isDrawing(image)) throw new Sentence("Has two values only, so it is a mask and no photograph.");
  say("finding the field of view");
  const { width, height } = image, { fov, flags } = findFov(image, facts.limits);
  say("waiting for the network to unpack");
  const { ort, session } = await ready;
  const number = (value) => new ort.Tensor("int64", BigInt64Array.of(BigInt(value)), []);
  const look = async (diameter, times) => (await session.run({
    image: new ort.Tensor("uint8", new Uint8Array(image.data.buffer), [height, width, 4]),
    fov: new ort.Tensor("bool", fov, [height, width]),
    views: number(times), fov_diameter: number(diameter),
  })).probability.data;
  let diameter = facts.fov_diameter, seen, small = false, fitting;
  // predict.py: at_fitting_scale. What a look has drawn at the right scale is not drawn again.
  for (let n = 0; facts.learned_width && n < facts.limits.looks; n++) {
    say("looking how wide the vessels are");
    seen = await look(diameter, 1);
    const native = diameterOf(fov, width, height);
    ({ fitting, small } = seenAt(widest(seen, width, height, native), native));
    if (Math.abs(fitting / diameter - 1) < facts.limits.near) break;
    [diameter, seen] = [fitting, undefined];
  }
  say(views === 1 ? "in the network" : "in the network, four times");
  const probability = views === 1 && seen ? seen : await look(diameter, views);
  if (small) flags.push("wide field seen too small (make predict sees it larger)");
  say("keeping the map");
  return { width, height, diameter, flags, ...(await kept(probability, fov, width, height)) };
}

// ---- intake/scale.py ---------------------------------------------------------------------------
function diameterOf(fov, width, height) {
  let top = height, bottom = 0, left = width, right = 0;
  for (let i = 0, x = 0, y = 0; i < fov.length; i++) {
    if (fov[i]) {
      if (y < top) top = y;
      if (x < left) left = x;
      if (x > right) right = x;
      bottom = y;
    }
    if (++x === width) [x, y] = [0, y + 1];
  }
  return Math.max(bottom - top, right - left) + 1;
}

// How wide the widest vessels are, as a share of the diameter. The squared distances to the nearest
// pixel without vessel are exact: first along columns, then the least along each row.
function widest(probability, width, height, diameter) {
  const far = new Uint32Array(probability.length), squares = [], last = far.length - 1;
  for (let i = 0; i <= last; i++)
    if (probability[i] >= 0.5) far[i] = i < width ? width + height : far[i - width] + 1;
  for (let i = last - width; i >= 0; i--) far[i] = Math.min(far[i], far[i + width] + 1);
  for (let i = 0; i <= last; i++) {
    if (!far[i]) continue;
    const x = i % width;
    let least = far[i] ** 2;
    for (let d = 1; d * d < least && d < width; d++) {
      if (x >= d) least = Math.min(least, d * d + far[i - d] ** 2);
      if (x + d < width) least = Math.min(least, d * d + far[i + d] ** 2);
    }
    squares.push(least);
  }
  if (squares.length < facts.limits.fewest) return NaN;
  const sorted = Float64Array.from(squares, Math.sqrt).sort(), place = facts.limits.wide * (sorted.length - 1);
  const low = sorted[Math.floor(place)], high = sorted[Math.ceil(place)];
  return (2 * (low + (high - low) * (place % 1))) / diameter;
}

function fittingDiameter(found, native) {
  const { fov_diameter: usual, learned_width: learned } = facts, { lowest, highest, beyond } = facts.limits;
  if (!(found > 0)) return usual;
  const ratio = learned / found;
  const factor = Math.min(Math.max(ratio > 1 ? ratio : Math.sqrt(ratio), lowest), highest);
  return rint(Math.min(usual * factor, Math.max(beyond * native, lowest * usual)));
}

// A browser's memory holds no more at once than limits.widest.
function seenAt(found, native) {
  const wanted = fittingDiameter(found, native);
  const fitting = Math.min(wanted, Math.max(facts.limits.widest, facts.fov_diameter));
  return { fitting, small: wanted > 1.25 * fitting };
}

// ---- what is kept ------------------------------------------------------------------------------
// Each pixel's 16-bit level as a PNG file, its code for the slider, and how often each level occurs.
async function kept(probability, fov, width, height) {
  const values = new Uint16Array(fov.length), codes = new Uint8Array(fov.length);
  const histogram = new Uint32Array(65536), reached = new Uint8Array(65536);
  let area = 0;
  for (let i = 0; i < fov.length; i++)
    if (fov[i]) {
      values[i] = rint(probability[i] * 65535);
      histogram[values[i]]++;
      area++;
    }
  const { drawn, dice, own } = expect(histogram);
  const { levels, marks } = trackOf(histogram, area, facts.threshold ?? own / 65535);
  const lowest = levels.map((level) => Math.ceil(level * 65535 - 0.005)); // metrics.py: lowest_level
  for (let k = 0, n = 0; k < 65536; k++) {
    while (n < lowest.length && lowest[n] <= k) n++;
    reached[k] = n;
  }
  for (let i = 0; i < fov.length; i++) if (fov[i]) codes[i] = reached[values[i]];
  return {
    area, histogram, levels, marks, best: dice(own),
    scores: { dice: lowest.map(dice), density: lowest.map((k) => drawn[k] / area) },
    codes: await deflated(codes), probability: await png(values, width, height, 16),
  };
}

// metrics.py: expect. `own` is the level at which the expected Dice is greatest; of several the highest.
function expect(histogram) {
  const drawn = new Float64Array(65537), right = new Float64Array(65537);
  for (let k = 65535; k >= 0; k--) {
    drawn[k] = drawn[k + 1] + histogram[k];
    right[k] = right[k + 1] + (histogram[k] * k) / 65535;
  }
  const dice = (k) => (drawn[k] + right[0] ? (2 * right[k]) / (drawn[k] + right[0]) : 0);
  let own = 65535;
  for (let k = own; k >= 0; k--) if (dice(k) > dice(own)) own = k;
  return { drawn, dice, own };
}

// viewer.py: threshold_levels and marks_on.
function trackOf(histogram, area, chosen) {
  const { even, least, most } = facts.track, offered = new Set([chosen, 0.5]);
  for (let k = 0; k <= even; k++) offered.add(k / even);
  for (let n = 0, k = 0, below = histogram[0]; n < even; n++) {
    while (below / area < least + ((most - least) * n) / (even - 1)) below += histogram[++k];
    offered.add(Math.round((k / 65535) * 1e4) / 1e4);
  }
  const levels = [...offered].sort((a, b) => a - b);
  const mark = (name, at) => ({ level: levels.indexOf(at), label: facts.labels[name] });
  return { levels, marks: { chosen: mark("chosen", chosen), half: mark("half", 0.5) } };
}
function rint(value) { // half to even, as NumPy
  const down = Math.floor(value), rest = value - down;
  return down + (rest > 0.5 || (rest === 0.5 && down % 2) ? 1 : 0);
}

// ---- reading -----------------------------------------------------------------------------------
async function read(file) {
  let bytes;
  try {
    bytes = new Uint8Array(await file.arrayBuffer());
  } catch { throw new Sentence("Cannot be read. If it is a folder, choose the photographs in it."); }
  if (!bytes.length) throw new Sentence("Is empty. Get the file again.");
  const name = kindOf(bytes);
  if (!name || name === "PDF")
    throw new Sentence(`Is ${name ? "a PDF" : "no photograph"}: expected a PNG, JPEG, WebP, BMP or GIF file.`);
  if (["TIFF", "DICOM", "JPEG 2000", "PPM"].includes(name))
    throw new Sentence(`Is a ${name} file, which browsers do not read. Save it as PNG; make predict ` +
      "takes it as it is.");
  const broken = new Sentence(`Cannot be read as ${name}: damaged or cut short. Get the file again.`);
  if (!isWhole(bytes, name)) throw broken;
  if (name === "PNG" && bytes[24] === 16)
    throw new Sentence("Has 16 bits a channel, of which a browser would drop half. Save it with 8 bits.");
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch { throw broken; }
  const { width, height } = bitmap;
  if (width * height > facts.limits.pixels)
    throw new Sentence(`Has more than ${facts.limits.pixels / 1e6} megapixels. Reduce it.`);
  const context = canvasOf(width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  refuseAltered();
  return context.getImageData(0, 0, width, height);
}

// Opaque: what is transparent comes out black, as outside the field of view.
function canvasOf(width, height) {
  return new OffscreenCanvas(width, height).getContext("2d", { alpha: false, willReadFrequently: true });
}

function kindOf(bytes) {
  const text = String.fromCharCode(...bytes.subarray(0, 140)), starts = (...all) => all.some((s) => text.startsWith(s));
  if (starts("\x89PNG\r\n\x1a\n")) return "PNG";
  if (starts("\xff\xd8\xff")) return "JPEG";
  if (starts("RIFF") && text.slice(8, 12) === "WEBP") return "WebP";
  if (starts("GIF8")) return "GIF";
  if (starts("BM")) return "BMP";
  if (starts("II*\0", "MM\0*", "II+\0", "MM\0+")) return "TIFF";
  if (text.slice(128, 132) === "DICM") return "DICOM";
  if (starts("\0\0\0\x0cjP", "\xff\x4f\xff\x51")) return "JPEG 2000";
  if (/^P[1-7]\s/.test(text)) return "PPM";
  return starts("%PDF") ? "PDF" : "";
}

// Browsers draw what there is of a file that was cut short, without a word.
function isWhole(bytes, name) {
  const last = (a, b) => {
    let i = bytes.length - 2;
    while (i >= 0 && !(bytes[i] === a && bytes[i + 1] === b)) i--;
    return i;
  };
  if (name === "JPEG") return last(0xff, 0xd9) > last(0xff, 0xda);
  const end = String.fromCharCode(...bytes.subarray(-12)), view = new DataView(bytes.buffer);
  if (name === "PNG") return end.includes("IEND");
  if (name === "WebP") return view.getUint32(4, true) + 8 <= bytes.length;
  if (name === "BMP") return bytes.length > 26 && view.getUint32(2, true) <= bytes.length;
  return bytes.at(-1) === 0x3b || end.includes("\x3b");
}

// A browser told to blur what pages read of pictures would change every result a little.
function refuseAltered() {
  const context = canvasOf(16, 16), given = context.createImageData(16, 16);
  for (let i = 0; i < given.data.length; i++) given.data[i] = i % 4 === 3 ? 255 : (i * 37) % 256;
  context.putImageData(given, 0, 0);
  const found = context.getImageData(0, 0, 16, 16).data;
  if (found.some((value, i) => value !== given.data[i]))
    throw new Sentence("This browser alters the pixels that a page reads (a privacy setting). " +
      "Allow it for this page, or use another browser.");
}

// commands/quality.py: is_drawing.
function isDrawing({ data }) {
  const low = [255, 255, 255], high = [0, 0, 0];
  for (let i = 0; i < data.length; i++)
    if (i % 4 < 3) { low[i % 4] = Math.min(low[i % 4], data[i]); high[i % 4] = Math.max(high[i % 4], data[i]); }
  const range = Math.max(...high.map((value, c) => value - low[c])), enough = (facts.limits.between * data.length) / 4;
  let found = 0;
  for (let i = 0; i < data.length && found < enough; i += 4)
    for (let c = 0; c < 3; c++)
      if (Math.min(high[c] - data[i + c], data[i + c] - low[c]) > 0.15 * range) { found++; break; }
  return found < enough && range > 0;
}
