// retina_utils/fov.py and the flags of commands/quality.py again, for a browser: the same steps with
// the same limits, on arrays in place of NumPy's. Chance draws other circles, which end alike.
const cross = (width) => [-1, 1, -width, width];
const length = (x, y) => Math.sqrt(x * x + y * y); // Math.hypot is several times slower

// A mask (0 or 1) grown or shrunk by `steps`, counted along rows and columns, in two passes. Beyond
// the picture lies `border`.
function morph(mask, width, height, steps, grow, border = 0) {
  const from = grow ? 1 : 0, beyond = border === from ? 1 : 99, last = mask.length - 1;
  const far = mask.map((value) => (value === from ? 0 : 99));
  const pass = (at, left, up) => {
    for (let k = 0, x = 0; k <= last; k++, x = x === width - 1 ? 0 : x + 1) {
      const i = at(k), beside = x ? far[i + left] + 1 : beyond, above = k >= width ? far[i + up] + 1 : beyond;
      far[i] = Math.min(far[i], beside, above, 99);
    }
  };
  pass((k) => k, -1, -width);
  pass((k) => last - k, 1, width);
  return far.map((value) => (grow ? value <= steps : value > steps));
}
const not = (mask) => mask.map((value) => 1 - value);
const count = (mask) => mask.reduce((sum, value) => sum + value, 0);

// Marks with `label` what of `mask` hangs together with the places in `stack`; gives how much.
function flood(mask, width, labels, label, stack) {
  let size = 0;
  for (const place of stack) labels[place] = label;
  while (stack.length) {
    const i = stack.pop(), x = i % width;
    size++;
    for (const step of cross(width)) {
      const j = i + step;
      if ((step === -1 && !x) || (step === 1 && x === width - 1)) continue;
      if (j >= 0 && j < mask.length && mask[j] && !labels[j]) { labels[j] = label; stack.push(j); }
    }
  }
  return size;
}
function borderOf(width, height) {
  const places = [];
  for (let x = 0; x < width; x++) places.push(x, (height - 1) * width + x);
  for (let y = 1; y < height - 1; y++) places.push(y * width, y * width + width - 1);
  return places;
}

// A quantile as NumPy gives it, of those values (0 to 255) that `chosen` keeps.
function quantile(values, share, chosen) {
  const counts = new Uint32Array(256);
  let total = 0;
  for (let i = 0; i < values.length; i++)
    if (!chosen || chosen(i)) { counts[values[i]]++; total++; }
  const at = (place) => { let value = 0, sum = counts[0]; while (sum <= place) sum += counts[++value]; return value; };
  if (!total) return NaN;
  const place = share * (total - 1), low = at(Math.floor(place)), high = at(Math.ceil(place));
  return low + (high - low) * (place - Math.floor(place));
}

// Means of squares of `factor` pixels, as Pillow's reduce: (w, h) RGB.
function reduced({ data, width, height }, factor) {
  const w = Math.ceil(width / factor), h = Math.ceil(height / factor);
  const small = new Uint8Array(3 * w * h), sums = new Uint32Array(3 * w);
  for (let y = 0; y < h; y++) {
    sums.fill(0);
    const rows = Math.min(factor, height - y * factor);
    for (let row = 0; row < rows; row++)
      for (let x = 0, i = 4 * (y * factor + row) * width; x < width; x++, i += 4) {
        const to = 3 * Math.floor(x / factor);
        sums[to] += data[i]; sums[to + 1] += data[i + 1]; sums[to + 2] += data[i + 2];
      }
    for (let x = 0; x < 3 * w; x++) {
      const n = rows * Math.min(factor, width - Math.floor(x / 3) * factor);
      small[3 * w * y + x] = Math.floor(sums[x] / n + 0.5);
    }
  }
  return { small, w, h };
}

function brightnessOf({ small, w, h }, limits) {
  const white = new Uint8Array(w * h), bright = new Uint8Array(w * h), border = borderOf(w, h);
  for (let i = 0; i < w * h; i++) {
    const [r, g, b] = [small[3 * i], small[3 * i + 1], small[3 * i + 2]];
    white[i] = Math.min(r, g, b) >= limits.white;
    bright[i] = Math.max(r, g, b);
  }
  const edge = border.filter((i) => white[i]);
  if (edge.length >= border.length / 2) {
    const page = new Uint8Array(w * h);
    flood(white, w, page, 1, edge);
    morph(page, w, h, 1, true).forEach((on, i) => { if (on) bright[i] = 0; });
  }
  const smooth = new Uint8Array(w * h), nine = new Uint8Array(9);
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      for (let k = 0; k < 9; k++) {
        const yy = Math.min(h - 1, Math.max(0, y + Math.floor(k / 3) - 1));
        nine[k] = bright[yy * w + Math.min(w - 1, Math.max(0, x + (k % 3) - 1))];
      }
      smooth[y * w + x] = nine.sort()[4];
    }
  return smooth;
}

function largestComponent(bright, w, h) {
  const opened = morph(morph(bright, w, h, 2, false), w, h, 2, true);
  const labels = new Uint32Array(w * h);
  let best = 0, size = 0, label = 0;
  for (let i = 0; i < opened.length; i++)
    if (opened[i] && !labels[i]) {
      const found = flood(opened, w, labels, ++label, [i]);
      if (found > size) [best, size] = [label, found];
    }
  if (!best) return new Uint8Array(w * h);
  const others = new Uint8Array(w * h).map((_, i) => labels[i] !== best);
  const outside = new Uint8Array(w * h);
  flood(others, w, outside, 1, borderOf(w, h).filter((i) => others[i]));
  return not(outside); // with its holes filled
}

// First and last place of each row and column that has one: [[line, first, last], …].
function extremes(region, w, h) {
  const rows = [], columns = [];
  for (let y = 0; y < h; y++) {
    const line = region.subarray(y * w, (y + 1) * w), first = line.indexOf(1);
    if (first >= 0) rows.push([y, first, line.lastIndexOf(1)]);
  }
  for (let x = 0; x < w; x++) {
    let first = -1, last = -1;
    for (let y = 0; y < h; y++) if (region[y * w + x]) { if (first < 0) first = y; last = y; }
    if (first >= 0) columns.push([x, first, last]);
  }
  return { rows, columns };
}

// Kåsa's least squares; of three points the circle through them.
function circleOf(points) {
  let n = points.length, mx = 0, my = 0, xx = 0, xy = 0, yy = 0, xz = 0, yz = 0, zz = 0;
  for (const [x, y] of points) { mx += x / n; my += y / n; }
  for (const [px, py] of points) {
    const x = px - mx, y = py - my, z = x * x + y * y;
    xx += x * x; xy += x * y; yy += y * y; xz += x * z; yz += y * z; zz += z;
  }
  const det = 2 * (xx * yy - xy * xy);
  const cx = (xz * yy - yz * xy) / det, cy = (yz * xx - xz * xy) / det;
  return [cx + mx, cy + my, Math.sqrt(cx * cx + cy * cy + zz / n)];
}

function fitCircle(points, w, h) {
  const size = Math.max(w, h), near = Math.max(1, 0.004 * size);
  const nothing = { disc: new Uint8Array(w * h), support: 0 };
  if (points.length < 12) return nothing;
  let seed = 1, best = [], error = Infinity;
  const draw = () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return points[Math.floor((seed / 2 ** 32) * points.length)];
  };
  const away = ([x, y], [cx, cy, r]) => Math.abs(length(x - cx, y - cy) - r);
  for (let trial = 0; trial < 400; trial++) {
    const circle = circleOf([draw(), draw(), draw()]);
    if (!(circle[2] < 2 * size)) continue;
    let found = 0, sum = 0;
    for (const point of points) { const d = away(point, circle); sum += d * d; found += d < near; }
    if (found > best.length || (found === best.length && sum < error))
      [best, error] = [points.filter((point) => away(point, circle) < near), sum];
  }
  for (let again = 0; again < 11 && best.length > 11; again++) {
    const circle = circleOf(best);
    best = points.filter((point) => away(point, circle) < near);
  }
  if (best.length < 12) return nothing;
  const [cx, cy, r] = circleOf(best), hit = new Uint8Array(180);
  for (const [x, y] of best)
    hit[Math.min(179, Math.floor(((Math.atan2(y - cy, x - cx) + Math.PI) / (2 * Math.PI)) * 180))] = 1;
  let visible = 0, seen = 0, all = 0;
  for (let k = 0; k <= 180; k++) {
    const turn = -Math.PI + (2 * Math.PI * k) / 180;
    const inside = within(cx + r * Math.cos(turn), cy + r * Math.sin(turn), w, h);
    all += inside;
    if (k < 180 && inside) { visible++; seen += hit[k]; }
  }
  const disc = new Uint8Array(w * h).map((_, i) =>
    length((i % w) + 0.5 - cx, Math.floor(i / w) + 0.5 - cy) <= r);
  return { disc, support: all > 9 ? seen / visible : 0 };
}
const within = (x, y, w, h) => x > 1 && x < w - 1 && y > 1 && y < h - 1;

function edgeContrast(brightness, disc, w, h) {
  const steps = Math.max(2, Math.round(0.015 * Math.max(w, h)));
  const core = morph(disc, w, h, steps, false, 1), wide = morph(disc, w, h, steps, true);
  const outside = quantile(brightness, 0.5, (i) => wide[i] && !disc[i]);
  if (Number.isNaN(outside)) return 0;
  const floor = quantile(brightness, 0.05, (i) => !disc[i]);
  const inside = quantile(brightness, 0.5, (i) => disc[i] && !core[i]);
  return (inside - outside) / Math.max(inside - floor, 1);
}

// Area over the area of the convex hull, counted in pixels as scikit-image does.
function solidity(area, rows) {
  const points = [];
  for (const [y, a, b] of rows)
    points.push([a - 0.5, y], [b + 0.5, y], [a, y - 0.5], [a, y + 0.5], [b, y - 0.5], [b, y + 0.5]);
  points.sort((p, q) => p[1] - q[1] || p[0] - q[0]);
  const half = (turn) => {
    const hull = [];
    for (const p of points) {
      while (hull.length > 1) {
        const [[ax, ay], [bx, by]] = hull.slice(-2);
        if (turn * ((bx - ax) * (p[1] - ay) - (by - ay) * (p[0] - ax)) > 0) break;
        hull.pop();
      }
      hull.push(p);
    }
    return (y) => { // where the hull's side crosses a row
      const k = Math.max(1, hull.findIndex((p) => p[1] >= y && p !== hull[0]));
      const [[ax, ay], [bx, by]] = [hull[k - 1], hull[k]];
      return by === ay ? bx : ax + ((bx - ax) * (y - ay)) / (by - ay);
    };
  };
  const left = half(-1), right = half(1);
  let hull = 0;
  for (let y = rows[0][0]; y <= rows[rows.length - 1][0]; y++)
    hull += Math.floor(Math.max(left(y), right(y)) + 1e-9) - Math.ceil(Math.min(left(y), right(y)) - 1e-9) + 1;
  return area / hull;
}

// intake/bars.py: the part of a disc that no bar covers; each side in turn is the top.
function withoutBars(disc, brightness, w, h, limits) {
  for (let side = 0; side < 4; side++) {
    const turn = (array) => array.map((_, i) => array[(i % h) * w + w - 1 - Math.floor(i / h)]);
    [disc, brightness, w, h] = [turn(disc), turn(brightness), h, w];
    disc.fill(0, 0, w * (lastOfBar(disc, brightness, w, h, limits) + 1));
  }
  return disc;
}
function lastOfBar(disc, brightness, w, h, limits) {
  const lines = extremes(disc, w, h).rows, rows = lines.slice(0, lines.length * limits.deepest), most = [];
  const surround = quantile(brightness, 0.5, (i) => !disc[i]);
  let last = -1;
  for (const [k, [y]] of rows.entries()) {
    const light = (share, part) =>
      quantile(brightness.subarray(y * w, (y + 1) * w), share, (x) => disc[y * w + x] === part);
    const median = light(0.5, 0), beside = Number.isNaN(median) ? surround : median;
    most.push(Math.max(light(0.75, 1) - beside, ...most.slice(-1)));
    if (most[k - limits.step] < (light(0.25, 1) - beside) / 2) last = rows[k - limits.step][0];
  }
  return last;
}

const span = (lines) => lines[lines.length - 1][0] - lines[0][0] + 1;

function candidate(brightness, w, h, threshold, limits) {
  const bright = largestComponent(brightness.map((value) => value > threshold), w, h);
  const found = extremes(bright, w, h);
  if (count(bright) < limits.smallest * w * h) return { quality: 0 };
  if (Math.min(span(found.rows), span(found.columns)) < 9) return { quality: 0 };
  const outline = [
    ...found.rows.flatMap(([y, a, b]) => [[a, y + 0.5], [b + 1, y + 0.5]]),
    ...found.columns.flatMap(([x, a, b]) => [[x + 0.5, a], [x + 0.5, b + 1]]),
  ].filter(([x, y]) => within(x, y, w, h));
  const { disc: whole, support } = fitCircle(outline, w, h);
  const [disc, region] = [whole, bright].map((mask) => withoutBars(mask, brightness, w, h, limits));
  const discEdge = edgeContrast(brightness, disc, w, h);
  const edge = edgeContrast(brightness, region, w, h);
  const circular = support > 0.4 && discEdge > 0.5;
  let both = 0, either = 0;
  for (let i = 0; i < region.length; i++) { both += disc[i] & region[i]; either += disc[i] | region[i]; }
  if (circular && both > 0.965 * either) return { quality: 2 + support + discEdge, disc };
  const { rows, columns } = extremes(region, w, h), area = count(region);
  if (edge > 0.7 && area / (span(rows) * span(columns)) < 0.95 && solidity(area, rows) > 0.95)
    return { quality: 1 + edge, disc: region };
  return circular ? { quality: support, disc } : { quality: 0 };
}

// Pixels from the edge, positive inside, no further than 8; then from where the light falls to half.
function depthOf(disc, brightness, w, h) {
  const far = new Float32Array(w * h).fill(8.5);
  for (let y = 0, i = 0; y < h; y++)
    for (let x = 0; x < w; x++, i++) {
      const at = (xx, yy) => (xx < 0 || yy < 0 || xx >= w || yy >= h ? disc[i] : disc[yy * w + xx]);
      if (at(x - 1, y) + at(x + 1, y) + at(x, y - 1) + at(x, y + 1) === 4 * disc[i]) continue;
      for (let v = Math.max(0, y - 8); v <= Math.min(h - 1, y + 8); v++)
        for (let u = Math.max(0, x - 8); u <= Math.min(w - 1, x + 8); u++) {
          const j = v * w + u;
          if (disc[j] !== disc[i]) far[j] = Math.min(far[j], length(u - x, v - y));
        }
    }
  const depth = far.map((value, i) => (disc[i] ? value - 0.5 : 0.5 - value));
  const floor = quantile(brightness, 0.05, (i) => !disc[i]), level = [];
  for (let k = 0; k < 9; k++)
    level.push(quantile(brightness, 0.5, (i) => depth[i] > k - 1 && depth[i] <= k) - floor);
  if (level.some(Number.isNaN)) return depth;
  for (let k = 1; k < 7; k++)
    if (level[k] >= level[k + 2] / 2) {
      const rise = (level[k + 2] / 2 - level[k - 1]) / Math.max(level[k] - level[k - 1], 1);
      const less = Math.max(0, k - 1.5 + Math.min(1, Math.max(0, rise)));
      return depth.map((value) => value - less);
    }
  return depth;
}

// Where depth is not negative on a grid `factor` times finer.
function enlarge(depth, w, h, factor, width, height) {
  const fov = new Uint8Array(width * height);
  const places = (n, small) => {
    const low = new Int32Array(n), high = new Int32Array(n), share = new Float32Array(n);
    for (let i = 0; i < n; i++) {
      const at = Math.min(small - 1, Math.max(0, (i + 0.5) / factor - 0.5));
      low[i] = Math.floor(at);
      high[i] = Math.min(low[i] + 1, small - 1);
      share[i] = at - low[i];
    }
    return { low, high, share };
  };
  const { low, high, share } = places(width, w), down = places(height, h), line = new Float32Array(w);
  for (let y = 0, i = 0; y < height; y++) {
    const top = w * down.low[y], bottom = w * down.high[y], v = down.share[y];
    for (let x = 0; x < w; x++) line[x] = depth[top + x] * (1 - v) + depth[bottom + x] * v;
    for (let x = 0; x < width; x++, i++)
      fov[i] = line[low[x]] * (1 - share[x]) + line[high[x]] * share[x] >= 0;
  }
  return fov;
}

// The field of view of {data, width, height} as 0 and 1, and what is doubtful about the photograph.
function findFov(image, limits) {
  const { width, height } = image;
  const factor = Math.ceil(Math.max(width, height) / limits.working_size);
  const copy = reduced(image, factor), { w, h } = copy;
  const brightness = brightnessOf(copy, limits);
  const low = quantile(brightness, 0.005), high = quantile(brightness, 0.95);
  if (high < limits.black)
    throw new Sentence(`No field of view: 95 % of the pixels are darker than ${high.toFixed(0)} of ` +
      "255. Expected a bright disc; leave the photograph out.");
  const found = limits.cuts.map((cut) => candidate(brightness, w, h, low + cut * (high - low), limits));
  const best = found.reduce((a, b) => (b.quality > a.quality ? b : a));
  if (best.quality > 0) {
    const depth = depthOf(best.disc, brightness, w, h);
    const fov = enlarge(depth, w, h, factor, width, height);
    return { fov, flags: photographFlags(copy, depth.map((value) => value >= 0), limits) };
  }
  const bright = low + limits.cuts[limits.cuts.length - 1] * (high - low);
  if (count(brightness.map((value) => value > bright)) > w * h / 2 || low > 0.3 * high) {
    const flags = photographFlags(copy, new Uint8Array(w * h).fill(1), limits);
    return { fov: new Uint8Array(width * height).fill(1), flags };
  }
  throw new Sentence("No round field of view: the bright part of the picture is neither a disc nor one " +
    `compact region of at least ${100 * limits.smallest} % of its area. Check that this is a fundus photograph.`);
}

function photographFlags({ small, w, h }, inside, limits) {
  const channel = (pick) => new Uint8Array(w * h).map((_, i) => pick(small[3 * i], small[3 * i + 1], small[3 * i + 2]));
  const within = (i) => inside[i], flags = [];
  if (quantile(channel(Math.max), 0.95, within) < limits.darkest) flags.push("too dark");
  const { rows, columns } = extremes(inside, w, h);
  if (oblong(inside, w, rows, columns, limits)) flags.push("not round (no retina?)");
  const spread = channel((...rgb) => Math.max(...rgb) - Math.min(...rgb));
  const [red, green] = [channel((r) => r), channel((r, g) => g)].map((c) => quantile(c, 0.5, within));
  if (quantile(spread, 0.9, within) >= limits.grey && red < limits.reddest * Math.max(green, 1))
    flags.push("not red (no retina?)");
  return flags;
}

function oblong(inside, w, rows, columns, limits) {
  const top = rows[0][0], height = span(rows), left = columns[0][0], width = span(columns);
  const size = Math.max(width, height);
  if (size <= limits.oblong * Math.min(width, height)) return false;
  let corners = 0, filled = 0;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      if (length(2 * y - height + 1, 2 * x - width + 1) > size) {
        corners++;
        filled += inside[(top + y) * w + left + x];
      }
  return filled > limits.filled * corners;
}
