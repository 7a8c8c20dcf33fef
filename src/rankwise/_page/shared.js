"use strict";
const byId = (id) => document.getElementById(id);

// An element with properties and children; text is always text.
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made && name !== "style" && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.flat());
  return made;
}

// What a name holds that steers a terminal or turns the direction of writing, spelled.
const spelled = (text) => String(text).replace(
  /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/gu,
  (found) => "\\" + (found.codePointAt(0) < 256 ? "x" : "u")
    + found.codePointAt(0).toString(16).padStart(found.codePointAt(0) < 256 ? 2 : 4, "0"),
);
