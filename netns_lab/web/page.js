"use strict";

// The page keeps the last of each kind that the server tells, and draws it anew when something has come.
const told = { state: null, reach: [], faults: { node: [], etcd: [] } };
const former = new Map(); // counters of the look before, by node and device, for rates
const rates = new Map();
let chosen = null; // {kind: "node" or "etcd", name}

const CENTRE = { x: 450, y: 330 };
const RADIUS = { x: 335, y: 180 };
const ETCD = { x: 450, y: 32 };
const LETTER = 7.4; // mean width, to give labels a ground
const BOX = { width: 190, height: 88 };
const PLACES = { ready: "good", starting: "wait", ended: "bad" };

function element(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  return filled(made, attributes, children);
}

function html(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function position(index, count) {
  const angle = -Math.PI / 2 + (2 * Math.PI * (index + (count % 2 ? 0 : 0.5))) / count;
  return { x: CENTRE.x + RADIUS.x * Math.cos(angle), y: CENTRE.y + RADIUS.y * Math.sin(angle) };
}

function choice(kind, name, label) {
  const isChosen = chosen && chosen.kind === kind && chosen.name === name;
  const group = element("g", {
    class: `choice ${isChosen ? "chosen" : ""}`, tabindex: "0", role: "button", "aria-label": label, "data-name": name,
  });
  const choose = () => { chosen = { kind, name }; draw(); };
  group.addEventListener("click", choose);
  group.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault(); // a space would scroll the page as well
    choose();
  });
  return group;
}

// What became of the pings between the pods of two nodes, both ways.
function between(one, other) {
  const ours = new Set(one.pods.map((pod) => pod.name));
  const theirs = new Set(other.pods.map((pod) => pod.name));
  const pairs = told.reach.filter((pair) =>
    (ours.has(pair.from) && theirs.has(pair.to)) || (theirs.has(pair.from) && ours.has(pair.to)));
  const lost = pairs.filter((pair) => pair.ms === null);
  const mean = pairs.reduce((sum, pair) => sum + (pair.ms ?? 0), 0) / (pairs.length || 1);
  return { pairs: pairs.length, lost, mean };
}

// Where a label stands on its line (a quadratic Bézier curve): not half way, where lines cross.
function along(from, bend, to) {
  const share = 0.4;
  return (1 - share) ** 2 * from + 2 * (1 - share) * share * bend + share ** 2 * to;
}

// Whether packets of one node to the other go through its tunnel device.
function isInside(one, other) {
  const route = one.routes.find((each) => other.subnets.includes(each.to));
  return one.devices.some((device) => route?.device === device.name);
}

function drawTunnel(from, to, one, other) {
  const { pairs, lost, mean } = between(one, other);
  const state = pairs === 0 ? "" : lost.length ? "bad" : "good";
  const way = isInside(one, other) ? "tunnel" : "direct";
  const label = pairs === 0 ? "" : lost.length ? `${lost.length} of ${pairs} lost` : `${mean.toFixed(2)} ms ${way}`;
  const middle = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
  const bend = { x: middle.x + (CENTRE.x - middle.x) * 0.25, y: middle.y + (CENTRE.y - middle.y) * 0.25 };
  const path = `M ${from.x} ${from.y} Q ${bend.x} ${bend.y} ${to.x} ${to.y}`;
  const at = { x: along(from.x, bend.x, to.x), y: along(from.y, bend.y, to.y) };
  const width = label.length * LETTER + 8;
  const sign = element("g", {},
    element("rect", { class: "ground", x: at.x - width / 2, y: at.y - 11, width, height: 22 }),
    element("text", { class: `label ${state}`, x: at.x, y: at.y + 4 }, label));
  return [element("path", { class: `tunnel ${state} ${way === "tunnel" ? "inside" : ""}`, d: path }), sign];
}

function drawNode(node, at) {
  const group = choice("node", node.name, `node ${node.name}, daemon ${node.daemon}`);
  const left = at.x - BOX.width / 2;
  const top = at.y - BOX.height / 2;
  const withTunnel = node.devices.length > 0;
  group.append(
    element("rect", { class: "box", x: left, y: top, width: BOX.width, height: BOX.height, rx: 10 }),
    element("circle", { class: `dot ${PLACES[node.daemon]}`, cx: left + 16, cy: top + 18, r: 6 }),
    element("text", { class: "name", x: at.x, y: top + 23 }, node.name),
    element("text", { class: "small", x: at.x, y: top + 42 }, withTunnel ? node.subnets[0] ?? "no subnet" : "no tunnel device"),
  );
  const width = (BOX.width - 14) / Math.max(node.pods.length, 1);
  node.pods.forEach((pod, index) => {
    const x = left + 7 + index * width;
    group.append(
      element("rect", { class: "pod", x: x + 2, y: top + 52, width: width - 4, height: 26, rx: 6 }),
      element("text", { class: "small", x: x + width / 2, y: top + 69 }, pod.name),
    );
  });
  return group;
}

function drawMember(member, index, count) {
  const x = ETCD.x + (index - (count - 1) / 2) * 110;
  const group = choice("etcd", member.name, `etcd member ${member.name}`);
  const state = member.healthy ? "good" : member.running ? "wait" : "bad";
  group.append(
    element("rect", { class: "box", x: x - 50, y: ETCD.y - 18, width: 100, height: 36, rx: 18 }),
    element("circle", { class: `dot ${state}`, cx: x - 32, cy: ETCD.y, r: 6 }),
    element("text", { x: x + 8, y: ETCD.y + 5 }, member.name),
  );
  return group;
}

function draw() {
  if (!told.state) return;
  const { nodes, etcd } = told.state;
  chosen ??= { kind: "node", name: nodes[0].name };
  const focused = document.activeElement?.getAttribute("data-name");
  const places = nodes.map((_, index) => position(index, nodes.length));
  const tunnels = nodes.flatMap((one, index) =>
    nodes.slice(index + 1).flatMap((other, offset) => drawTunnel(places[index], places[index + 1 + offset], one, other)));
  const map = document.getElementById("map");
  map.replaceChildren(
    ...tunnels.filter((part) => part.tagName === "path"),
    ...etcd.map((member, index) => drawMember(member, index, etcd.length)),
    ...tunnels.filter((part) => part.tagName === "g"),
    ...nodes.map((node, index) => drawNode(node, places[index])),
  );
  if (focused) map.querySelector(`[data-name="${CSS.escape(focused)}"]`)?.focus();
  drawSummary(nodes, etcd);
  drawDetails(nodes, etcd);
}

function drawSummary(nodes, etcd) {
  const lost = told.reach.filter((pair) => pair.ms === null).length;
  const parts = [
    [nodes.filter((node) => node.daemon === "ready").length, nodes.length, "daemons ready"],
    [etcd.filter((member) => member.healthy).length, etcd.length, "etcd healthy"],
    [told.reach.length - lost, told.reach.length, "pairs of pods reach each other"],
  ];
  const summary = document.getElementById("summary");
  summary.className = parts.every(([good, all]) => good === all) ? "good" : "bad";
  summary.textContent = parts.map(([good, all, what]) => `${good} of ${all} ${what}`).join(" · ");
}

function definition(term, text, kind = "") {
  return [html("dt", {}, term), html("dd", { class: kind }, text)];
}

function drawDetails(nodes, etcd) {
  const all = chosen.kind === "node" ? nodes : etcd;
  const found = all.find((each) => each.name === chosen.name);
  const details = document.getElementById("details");
  if (!found) return;
  const rows = chosen.kind === "node" ? describeNode(found) : describeMember(found);
  const focused = document.activeElement?.getAttribute("data-fault");
  const buttons = told.faults[chosen.kind].map((fault) => {
    const kind = /^(mend|start)-/.test(fault.name) ? "mends" : "breaks";
    const button = html("button", { type: "button", class: kind, "data-fault": fault.name }, fault.label);
    button.addEventListener("click", () => breakIt(fault.name, found.name));
    return button;
  });
  const problem = document.getElementById("problem") ?? html("p", { id: "problem", role: "alert" });
  details.replaceChildren(
    html("h2", {}, found.name), ...rows,
    heading("break and mend"), html("div", { class: "faults" }, ...buttons), problem,
  );
  if (focused) details.querySelector(`[data-fault="${CSS.escape(focused)}"]`)?.focus();
}

function heading(text) {
  return html("h3", {}, text);
}

function list(...definitions) {
  return html("dl", {}, ...definitions.flat());
}

function describeNode(node) {
  const devices = node.devices.flatMap((device) => {
    const rate = rates.get(`${node.name} ${device.name}`) ?? { received: 0, sent: 0 };
    return [
      definition(`${device.name} in`, `${amount(device.received)}, now ${amount(rate.received)}/s`),
      definition(`${device.name} out`, `${amount(device.sent)}, now ${amount(rate.sent)}/s`),
    ];
  });
  return [
    list(
      definition("daemon", node.daemon, PLACES[node.daemon]),
      definition("address", `${node.addresses.join(" ")} (${node.underlay})`),
      definition("subnet", node.subnets.join(" ") || "none yet", node.subnets.length ? "" : "wait"),
      ...(devices.length ? devices : [definition("tunnel", "no device", "bad")]),
    ),
    heading("pods"),
    list(...(node.pods.length ? node.pods.map((pod) => definition(pod.name, pod.addresses.join(" "))) : [definition("none", "")])),
    heading("routes to other nodes"),
    list(...(node.routes.length
      ? node.routes.map((route) => definition(route.to, `${route.via} ${route.device}`))
      : [definition("none", "", "bad")])),
  ];
}

function describeMember(member) {
  return [list(
    definition("process", member.running ? "runs" : "ended", member.running ? "good" : "bad"),
    definition("healthy", member.healthy ? "yes" : "no", member.healthy ? "good" : "bad"),
  )];
}

function amount(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; bytes >= 1000 && unit < units.length - 1; unit += 1) bytes /= 1000;
  return `${bytes.toFixed(unit ? 1 : 0)} ${units[unit]}`;
}

async function breakIt(fault, target) {
  const answer = await fetch("faults", { method: "POST", body: JSON.stringify({ fault, target }) });
  document.getElementById("problem").textContent = answer.ok ? "" : await answer.text();
}

function takeRates(state) {
  const now = performance.now() / 1000;
  for (const node of state.nodes) {
    for (const device of node.devices) {
      const key = `${node.name} ${device.name}`;
      const before = former.get(key);
      const isSame = before && device.received >= before.received && device.sent >= before.sent;
      if (isSame && now > before.at) {
        const share = (what) => (device[what] - before[what]) / (now - before.at);
        rates.set(key, { received: share("received"), sent: share("sent") });
      }
      former.set(key, { ...device, at: now });
    }
  }
}

function addEvent({ time, place, text }) {
  const at = new Date(time * 1000);
  const clock = `${at.toLocaleTimeString("en-GB")}.${String(at.getMilliseconds()).padStart(3, "0")}`;
  const events = document.getElementById("events");
  events.prepend(html("li", {}, html("time", {}, clock), html("span", { class: place === "you" ? "you" : "" }, place), html("span", {}, text)));
  while (events.children.length > 200) events.lastChild.remove();
}

function listen() {
  const source = new EventSource("events");
  source.onopen = () => document.getElementById("events").replaceChildren();
  source.onerror = () => {
    const summary = document.getElementById("summary");
    summary.className = "bad";
    summary.textContent = "the lab does not answer; is netns-lab web still running?";
  };
  source.onmessage = (message) => {
    const [[kind, value]] = Object.entries(JSON.parse(message.data));
    if (kind === "event") return addEvent(value);
    if (kind === "state") takeRates(value);
    told[kind] = value;
    draw();
  };
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
setTheme(prefersDark.matches ? "dark" : "light");
prefersDark.addEventListener("change", () => setTheme(prefersDark.matches ? "dark" : "light"));
document.getElementById("theme").addEventListener("click", () =>
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
listen();
