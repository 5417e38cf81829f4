// Starts `attndsl lsp` and lets it speak: faults, hover, definitions, completion, layout.

const { workspace } = require("vscode");
const { LanguageClient, TransportKind } = require("vscode-languageclient/node");

let client;

function activate() {
  const [command, ...args] = workspace.getConfiguration("attndsl").get("command");
  const server = { command, args, transport: TransportKind.stdio };
  client = new LanguageClient("attndsl", "attndsl", server, { documentSelector: [{ language: "attn" }] });
  return client.start();
}

const deactivate = () => client?.stop();

module.exports = { activate, deactivate };
