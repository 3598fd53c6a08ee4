// Shows /openapi.json: chapters, operations, parameters, and a form to try each. Everything is put in as text, never as HTML.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];

// An element with a class, children and text.
function make(tag, name, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children);
  return element;
}

// Follows a reference inside the document.
function resolve(api, schema) {
  if (!schema || !schema.$ref) return schema || {};
  return schema.$ref.replace("#/", "").split("/").reduce((at, part) => at[part], api);
}

function typeOf(schema) {
  if (Array.isArray(schema.type)) return schema.type.join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items || {})}`;
  return schema.type || "anything";
}

// One row: name, something to fill in (or the type), explanation.
function row(name, required, input, about) {
  return make("div", "field", make("span", required ? "path required" : "path", name), input, make("span", "about", about || ""));
}

// An empty body with every member that is needed.
function example(schema) {
  const empty = { string: "", integer: 0, number: 0, boolean: false, array: [], object: {} };
  const needed = schema.required || [];
  return Object.fromEntries(needed.map((name) => [name, empty[(schema.properties[name] || {}).type] ?? null]));
}

// What an operation takes, a form to call it, and its answer.
function opened(api, path, method, operation) {
  const box = make("div", "open");
  if (operation.description) box.append(make("p", "", operation.description));
  const inputs = (operation.parameters || []).map((parameter) => {
    const input = make("input");
    input.placeholder = typeOf(parameter.schema || {});
    input.setAttribute("aria-label", parameter.name);
    return { parameter, input };
  });
  if (inputs.length) {
    box.append(make("h3", "", "Parameters"));
    for (const { parameter, input } of inputs) {
      box.append(row(parameter.name, parameter.required, input, parameter.description || (parameter.in === "path" ? "Part of the path." : "")));
    }
  }
  let body = null;
  const content = operation.requestBody && operation.requestBody.content["application/json"];
  if (content) {
    const schema = resolve(api, content.schema);
    box.append(make("h3", "", "Body"));
    for (const [name, member] of Object.entries(schema.properties || {})) {
      box.append(row(name, (schema.required || []).includes(name), make("span", "", typeOf(member)), member.description));
    }
    body = make("textarea");
    body.spellcheck = false;
    body.setAttribute("aria-label", "body");
    body.value = JSON.stringify(example(schema), null, 2);
    box.append(body);
  }
  const button = make("button", "", "Call");
  button.type = "button";
  const answer = make("div");
  button.addEventListener("click", () => call(path, method, inputs, body, answer));
  box.append(button, answer);
  box.append(make("h3", "", "Answers"));
  for (const [status, response] of Object.entries(operation.responses || {})) {
    box.append(make("div", "", make("code", "", status), ` ${response.description}`));
  }
  return box;
}

// Calls the operation with what the form says and shows what comes back.
async function call(path, method, inputs, body, answer) {
  const query = new URLSearchParams();
  let target = path;
  for (const { parameter, input } of inputs) {
    if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    else if (input.value !== "") query.append(parameter.name, input.value);
  }
  if ([...query].length) target += `?${query}`;
  const key = document.getElementById("key").value.trim();
  const headers = {};
  if (key) headers.authorization = `Bearer ${key}`;
  if (body) headers["content-type"] = "application/json";
  answer.replaceChildren(make("p", "", "Calling…"));
  const began = performance.now();
  try {
    const response = await fetch(target, { method: method.toUpperCase(), headers, body: body ? body.value : undefined });
    const text = await response.text();
    const took = Math.round(performance.now() - began);
    const status = make("p", "", make("code", "", `${response.status}`), ` ${method.toUpperCase()} ${target}, ${took} ms`);
    answer.replaceChildren(status, make("pre", "", pretty(text)));
  } catch (error) {
    answer.replaceChildren(make("p", "", `No answer: ${error.message}`));
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

// One operation, filled in when it is opened.
function operationOf(api, path, method, operation) {
  const details = make("details");
  const words = make("span", "words", operation.summary || "");
  details.append(make("summary", "", make("span", `method ${method}`, method.toUpperCase()), make("span", "path", path), words));
  details.dataset.words = `${method} ${path} ${operation.summary || ""}`.toLowerCase();
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(opened(api, path, method, operation));
  });
  return details;
}

function show(api) {
  document.getElementById("title").textContent = `${api.info.title} ${api.info.version}`;
  document.getElementById("about").textContent = api.info.description || "";
  const chapters = new Map((api.tags || []).map((tag) => [tag.name, []]));
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((name) => item[name])) {
      const tag = (item[method].tags || ["other"])[0];
      if (!chapters.has(tag)) chapters.set(tag, []);
      chapters.get(tag).push(operationOf(api, path, method, item[method]));
    }
  }
  const shown = [...chapters].filter(([, operations]) => operations.length);
  document.getElementById("chapters").replaceChildren(
    ...shown.map(([tag, operations]) => make("section", "", make("h2", "", tag), ...operations)),
  );
}

function find(words) {
  for (const section of document.querySelectorAll("section")) {
    let any = false;
    for (const details of section.querySelectorAll("details")) {
      details.hidden = !details.dataset.words.includes(words);
      any ||= !details.hidden;
    }
    section.hidden = !any;
  }
}

document.getElementById("find").addEventListener("input", (event) => find(event.target.value.trim().toLowerCase()));
fetch("/openapi.json")
  .then((response) => response.json())
  .then(show)
  .catch((error) => document.getElementById("chapters").replaceChildren(make("p", "", `openapi.json cannot be read: ${error.message}`)));
