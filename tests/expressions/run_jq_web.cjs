// Runs the jq program in a file without input by npm's jq-web, and prints its results, a line each.
const fs = require('fs');
require('jq-web').then((jq) => process.stdout.write(jq.raw('null', fs.readFileSync(process.argv[2], 'utf8'), ['-c', '-n']) + '\n'))
  .catch((error) => { process.stderr.write(String(error) + '\n'); process.exit(1); });
