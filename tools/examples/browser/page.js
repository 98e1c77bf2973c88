// Verifies a registered head, runs it on a stored feature vector with onnxruntime-web, and shows the scores.

const RUNTIME = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
const $ = (selector) => document.querySelector(selector);

class Refused extends Error {}

async function fetchBytes(name) {
  const answer = await fetch(`data/${name}`, {cache: "no-store"});
  if (!answer.ok) throw new Error(`data/${name} is not there: run export_vector.py first`);
  return answer.arrayBuffer();
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const parse = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

/** List a check; the first that fails refuses the model. */
function check(what, expected, found) {
  const passed = expected === found;
  const short = (value) => (/^[0-9a-f]{64}$/.test(value) ? value.slice(0, 12) : value);
  const item = document.createElement("li");
  item.className = passed ? "" : "bad";
  item.append(Object.assign(document.createElement("b"), {textContent: passed ? "passed" : "failed"}));
  const detail = passed ? `${what}: ${short(found)}` : `${what}: expected ${short(expected)}, found ${short(found)}`;
  item.append(Object.assign(document.createElement("span"), {textContent: detail}));
  $("#checks").append(item);
  if (!passed) throw new Refused(detail);
}

/** Numbers of one row or several as a tensor (rows, ...dims); null is a missing value. */
function tensor(ort, rows, dims) {
  const values = Float32Array.from(rows.flat(), (value) => (value === null ? NaN : value));
  return new ort.Tensor("float32", values, [rows.length, ...dims]);
}

/** The golden rows that were kept when the model was registered must come out here as they did there. */
async function replay(ort, session, sidecar, dims) {
  const golden = sidecar.golden_rows;
  const feeds = Object.fromEntries(Object.entries(golden.inputs).map(([name, rows]) => [name, tensor(ort, rows, dims[name])]));
  const found = (await session.run(feeds)).scores.data;
  const differences = golden.scores.flat().map((score, i) => Math.abs(found[i] - score) / Math.max(1, Math.abs(score)));
  const within = differences.length > 0 && differences.every((difference) => difference <= golden.tolerance);
  const far = `off by ${Math.max(...differences).toExponential(1)}`;
  check(`golden rows, within ${golden.tolerance}`, "as registered", within ? "as registered" : far);
}

/** A score on its scale: the track is the range of the labels, the band the interval, the dot the score. */
function picture(score, interval, [low, high], words) {
  const at = (value) => 100 * Math.min(1, Math.max(0, (value - low) / (high - low)));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", words);
  const add = (name, attributes) => {
    const shape = svg.appendChild(document.createElementNS(svg.namespaceURI, name));
    Object.entries(attributes).forEach(([key, value]) => shape.setAttribute(key, value));
  };
  add("rect", {class: "track", x: 0, y: "40%", width: "100%", height: "20%", rx: 3});
  if (interval) {
    const [from, to] = interval.map(at);
    add("rect", {class: "band", x: `${from}%`, y: "30%", width: `${to - from}%`, height: "40%", rx: 3});
  }
  add("circle", {class: "dot", cx: `${at(score)}%`, cy: "50%", r: 7});
  const ends = Object.assign(document.createElement("div"), {className: "ends"});
  [low, high].forEach((end) => ends.append(Object.assign(document.createElement("span"), {textContent: end})));
  const box = document.createElement("div");
  box.append(svg, ends);
  return box;
}

function show(sidecar, vector, outputs) {
  const cell = (tag, content, attributes = {}) => {
    const made = Object.assign(document.createElement(tag), {role: "cell", ...attributes});
    made.append(content);
    return made;
  };
  const bounded = sidecar.calibration ? sidecar.calibration.targets : {};
  sidecar.targets.forEach((target, i) => {
    const score = outputs.scores.data[i];
    const known = outputs.low && bounded[target] && bounded[target].half_width !== null;
    const interval = known ? [outputs.low.data[i], outputs.high.data[i]] : null;
    const [low, high] = sidecar.expected_output_range[target];
    const between = interval ? interval.map((end) => end.toFixed(2)).join(" to ") : "none";
    const words = `${target}: ${score.toFixed(2)}` + (interval ? `, interval ${between}` : "");
    const row = cell("tr", "", {role: "row"});
    row.dataset.target = target;
    row.dataset.score = score;
    if (interval) row.dataset.interval = interval.join(" ");
    row.append(cell("th", target, {scope: "row", role: "rowheader"}), cell("td", score.toFixed(2), {className: "number"}));
    row.append(cell("td", between, {className: "number"}));
    row.append(cell("td", picture(score, interval, sidecar.mos_range[target], words)));
    if (score < low || score > high) {
      row.lastChild.append(cell("small", `outside ${low.toFixed(2)} to ${high.toFixed(2)}: unlike the videos it was trained on`, {role: null}));
    }
    $("tbody").append(row);
  });
  $("#about").textContent = `${sidecar.name}, version ${sidecar.version}, on video ${vector.video_sha256.slice(0, 12)}`;
  const level = sidecar.calibration ? `, the band holds ${100 * sidecar.calibration.level}% of people's scores` : "";
  $("#legend").textContent = `${sidecar.direction.replaceAll("_", " ")}${level}`;
  $("#legend").textContent = $("#legend").textContent.replace(/^./, (first) => first.toUpperCase());
  $("#scores").hidden = false;
}

async function main() {
  const [graph, described, registered, stored] = await Promise.all(
    ["model.onnx", "model.json", "registered.json", "vector.json"].map(fetchBytes));
  const sidecar = parse(described), vector = parse(stored);
  check("sha256 of the sidecar, as registered", parse(registered).sidecar_sha256, await sha256(described));
  check("sha256 of the head, as the sidecar says", sidecar.onnx.sha256, await sha256(graph));
  const dims = {};
  for (const input of sidecar.inputs) {
    const given = vector.inputs[input.name] ?? {};
    dims[input.name] = input.shape ?? [input.dim];
    check(`fingerprint of the features ${input.name}`, input.fingerprint, given.fingerprint);
    check(`numbers of ${input.name}`, dims[input.name].reduce((a, b) => a * b, 1), given.values.length);
  }
  const ort = await import(`${RUNTIME}ort.wasm.min.mjs`).catch(() => {
    throw new Error("onnxruntime-web is not there: run npm install in this folder");
  });
  ort.env.wasm.wasmPaths = RUNTIME;
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(graph, {executionProviders: ["wasm"]});
  await replay(ort, session, sidecar, dims);
  const feeds = sidecar.inputs.map(({name}) => [name, tensor(ort, [vector.inputs[name].values], dims[name])]);
  const outputs = await session.run(Object.fromEntries(feeds));
  show(sidecar, vector, outputs);
}

main().then(
  () => ["done", "Every check passed."],
  (error) => [error instanceof Refused ? "refused" : "error", `No score: ${error.message}`],
).then(([state, text]) => {
  $("#status").textContent = text;
  $("#status").className = state === "done" ? "" : "bad";
  document.documentElement.dataset.state = state;
});
