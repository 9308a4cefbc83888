// Reads Dockerfiles with npm's dockerfile-ast: paths on stdin, one a line; a line of JSON for each on stdout.
const { readFileSync } = require("fs");
const path = require("path");
const { DockerfileParser } = require(path.join(process.argv[2], "node_modules/dockerfile-ast"));

const argument = (one) => (one ? one.getValue() : null);

function described(instruction) {
    const found = {
        keyword: instruction.getKeyword(),
        line: instruction.getRange().start.line + 1,
        flags: [],
        documents: [],
        json: null,
        pairs: null,
    };
    if (instruction.getFlags) {
        found.flags = instruction.getFlags().map((flag) => [flag.getName(), flag.getValue()]);
    }
    if (instruction.getHeredocs) {
        found.documents = instruction.getHeredocs().map((document) => document.getName());
    }
    if (instruction.getOpeningBracket && instruction.getOpeningBracket() && instruction.getClosingBracket()) {
        found.json = instruction.getJSONStrings().map((text) => text.getJSONValue());
    }
    if (instruction.getProperties) {
        found.pairs = instruction.getProperties().map((pair) => [pair.getName(), pair.getUnescapedValue()]);
    }
    if (instruction.getImage) {
        found.image = instruction.getImage();
        found.stage = instruction.getBuildStage();
    }
    return found;
}

for (const file of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
    const dockerfile = DockerfileParser.parse(readFileSync(file, "utf8"));
    console.log(
        JSON.stringify({
            escape: dockerfile.getEscapeCharacter(),
            directives: dockerfile.getDirectives().map((one) => [one.getName().toLowerCase(), one.getValue()]),
            instructions: dockerfile.getInstructions().map(described),
        }),
    );
}
