// Checks Kubernetes resources against the types and validators that were generated from their CRDs.
//
//   node check.mjs < resources.json        a JSON list of resources; prints every error, exit status 1 if there is one
//
// Twice over: the validator knows types, enumerations and patterns but lets unknown fields pass; TypeScript, which sees
// each resource as a literal of its type, refuses unknown fields.

import { readFileSync } from "node:fs";
import ts from "typescript";

const PACKAGES = {
  "gateway.envoyproxy.io": "envoy-gateway",
  "gateway.networking.k8s.io": "gateway-api",
  "monitoring.coreos.com": "prometheus-operator",
  "networking.istio.io": "istio",
  "projectcontour.io": "contour",
  "security.istio.io": "istio",
};

function moduleOf(resource) {
  const [group, version] = resource.apiVersion.split("/");
  if (!(group in PACKAGES)) throw new Error(`no package has the CRDs of ${group}`);
  return `@kubernetes-models/${PACKAGES[group]}/${group}/${version}/${resource.kind}`;
}

const errors = [];
const resources = JSON.parse(readFileSync(0, "utf8"));
const lines = [];
for (const [index, resource] of resources.entries()) {
  const name = `${resource.kind} ${resource.metadata.name}`;
  const specifier = moduleOf(resource);
  const Model = (await import(specifier))[resource.kind];
  try {
    new Model(resource).validate();
  } catch (error) {
    errors.push(`${name}: ${error.message}`);
  }
  lines.push(`import type { I${resource.kind} as T${index} } from ${JSON.stringify(specifier)};`);
  lines.push(`export const r${index}: T${index} = ${JSON.stringify(resource)};`);
}

const FILE = "resources.ts";
const options = { strict: true, noEmit: true, skipLibCheck: true, module: ts.ModuleKind.NodeNext, target: ts.ScriptTarget.ES2022 };
const host = ts.createCompilerHost(options);
const { getSourceFile, fileExists } = host;
const text = lines.join("\n");
host.getSourceFile = (name, ...rest) =>
  name.endsWith(FILE) ? ts.createSourceFile(name, text, ts.ScriptTarget.ES2022) : getSourceFile(name, ...rest);
host.fileExists = (name) => name.endsWith(FILE) || fileExists(name);
const program = ts.createProgram([`${process.cwd()}/${FILE}`], options, host);
for (const diagnostic of ts.getPreEmitDiagnostics(program)) {
  errors.push(ts.flattenDiagnosticMessageText(diagnostic.messageText, "\n"));
}

for (const error of errors) console.error(error);
process.exit(errors.length ? 1 : 0);
