#include "services/workflow-engine/domain/expressions/builtins.h"

#include <array>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "services/workflow-engine/domain/expressions/machine.h"

namespace tutti::engine::expressions {
namespace {

// Functions that are written in the language. Names with `_` in front are natives that only these may call.
constexpr char kDefinitions[] = R"jq(
def map(f): [.[] | f];
def select(f): if f then . else empty end;
def values: select(. != null);
def nulls: select(. == null);
def booleans: select(type == "boolean");
def numbers: select(type == "number");
def strings: select(type == "string");
def arrays: select(type == "array");
def objects: select(type == "object");
def iterables: select(type == "array" or type == "object");
def scalars: select(type != "array" and type != "object");
def finites: select(isfinite);
def normals: select(isnormal);
def recurse(f): def visit: ., (f | visit); visit;
def recurse(f; condition): def visit: ., (f | select(condition) | visit); visit;
def recurse: recurse(.[]?);
def recurse_down: recurse;
def map_values(f): .[] |= f;
def add(f): reduce f as $x (null; . + $x);
def del(f): delpaths([path(f)]);
def paths: path(..) | select(length > 0);
def paths(f): path(.. | select(f)) | select(length > 0);
def leaf_paths: paths(scalars);
def pick(f): . as $whole | reduce path(f) as $p (null; setpath($p; $whole | getpath($p)));
def with_entries(f): to_entries | map(f) | from_entries;
def sort_by(f): _sort_by(map([f]));
def group_by(f): _group_by(map([f]));
def unique_by(f): _unique_by(map([f]));
def min_by(f): _min_by(map([f]));
def max_by(f): _max_by(map([f]));
def isempty(f): first((f | false), true);
def any(source; condition): isempty(first(source | condition or empty)) | not;
def all(source; condition): isempty(first(source | condition and empty));
def any(condition): any(.[]; condition);
def all(condition): all(.[]; condition);
def any: any(.[]; .);
def all: all(.[]; .);
def first: .[0];
def last: .[-1];
def nth($n): .[$n];
def nth($n; f): if $n < 0 then error("nth doesn't support negative indices") else first(skip($n; f)) end;
def while(condition; update): def turn: if condition then ., (update | turn) else empty end; turn;
def until(condition; update): def turn: if condition then . else update | turn end; turn;
def repeat(f): def turn: f, turn; turn;
def in(container): . as $key | container | has($key);
def inside(container): . as $inner | container | contains($inner);
def combinations: if length == 0 then [] else .[0][] as $x | (.[1:] | combinations) as $rest | [$x] + $rest end;
def combinations($n): . as $set | [range($n) | $set] | combinations;
def walk(f): def visit: if type == "object" then map_values(visit) elif type == "array" then map(visit) else . end | f;
  visit;
def tostream: _stream[];
def fromstream(f): foreach f as $event ({};
  if .done then {} else . end
  | if $event | length == 2
    then .done = ($event[0] | length == 0) | .at = ["value"] + $event[0] | setpath(.at; $event[1])
    else .done = ($event[0] | length == 1) end;
  if .done then .value else empty end);
def truncate_stream(f): . as $depth | null | f | if .[0] | length > $depth then .[0] |= .[$depth:] else empty end;
def match($re; $flags): _match($re; $flags; false)[];
def match($re): _match($re; null; false)[];
def test($re; $flags): _match($re; $flags; true);
def test($re): _match($re; null; true);
def capture($re; $flags): match($re; $flags) | _captures;
def capture($re): match($re) | _captures;
def scan($re; $flags): match($re; "g" + $flags) | if .captures == [] then .string else [.captures[].string] end;
def scan($re): scan($re; null);
def split($re; $flags): _split($re; "g" + $flags);
def splits($re; $flags): split($re; $flags)[];
def splits($re): splits($re; null);
def sub($re; replacement; $flags): . as $text
  | [match($re; $flags) | {offset, length, with: [_captures | replacement]}] as $edits
  | $text | _replace($edits)[];
def sub($re; replacement): sub($re; replacement; "");
def gsub($re; replacement; $flags): sub($re; replacement; $flags + "g");
def gsub($re; replacement): sub($re; replacement; "g");
def ascii: [.] | implode;
def todate: strftime("%Y-%m-%dT%H:%M:%SZ");
def fromdate: strptime("%Y-%m-%dT%H:%M:%SZ") | mktime;
def todateiso8601: todate;
def fromdateiso8601: fromdate;
def date: todate;
def dateadd($unit; $n): . + $n;
def datesub($unit; $n): . - $n;
def debug: .;
def debug(messages): .;
def stderr: .;
def INDEX(source; f): reduce source as $row ({}; .[$row | f | tostring] = $row);
def INDEX(f): INDEX(.[]; f);
def IN(source): any(source == .; .);
def IN(values; source): any(values == source; .);
def JOIN($index; f): [.[] | [., $index[f]]];
def JOIN($index; rows; f): rows | [., $index[f]];
def JOIN($index; rows; f; join): rows | [., $index[f]] | join;
)jq";

constexpr std::array kFormats = {"text", "json", "csv",    "tsv",     "html",   "uri",
                                 "urid", "sh",   "base64", "base64d", "base32", "base32d"};

// Functions that the compiler knows; listed by `builtins`.
constexpr std::array<std::pair<const char*, int>, 13> kSpecial = {{{"empty", 0},
                                                                   {"error", 0},
                                                                   {"error", 1},
                                                                   {"path", 1},
                                                                   {"getpath", 1},
                                                                   {"first", 1},
                                                                   {"last", 1},
                                                                   {"limit", 2},
                                                                   {"skip", 2},
                                                                   {"range", 1},
                                                                   {"range", 2},
                                                                   {"range", 3},
                                                                   {"builtins", 0}}};

using Key = std::pair<std::string, size_t>;

const std::map<Key, const Definition*>& Definitions() {
  static const auto* const kMap = [] {
    auto* out = new std::map<Key, const Definition*>;
    static const AstPtr* const kAst = new AstPtr(*ParseDefinitions(kDefinitions));
    for (const Ast* at = kAst->get(); at->type == Ast::Type::kDefine; at = at->items[0].get()) {
      (*out)[{at->definition->name, at->definition->params.size()}] = at->definition.get();
    }
    return out;
  }();
  return *kMap;
}

Value Builtins(Machine& machine, Value&, Value*) {
  Value out = Value::Array(&machine.heap());
  auto add = [&](const std::string& name, size_t arity) {
    if (name[0] != '_') out.Append(&machine.heap(), Value::Text(&machine.heap(), absl::StrCat(name, "/", arity)));
  };
  for (const auto& [name, arity] : kSpecial) add(name, static_cast<size_t>(arity));
  for (const auto& [key, definition] : Definitions()) add(key.first, key.second);
  for (const NativeTable& table :
       {NumberNatives(), TextNatives(), CollectionNatives(), TimeNatives(), RegexNatives()}) {
    for (size_t i = 0; i < table.count; ++i) add(table.natives[i].name, static_cast<size_t>(table.natives[i].arity));
  }
  return out;
}

const std::map<Key, const Native*>& Natives() {
  static const auto* const kMap = [] {
    static const Native kOwn[] = {{"builtins", 0, Builtins}};
    auto* out = new std::map<Key, const Native*>;
    (*out)[{"builtins", 0}] = &kOwn[0];
    for (const NativeTable& table :
         {NumberNatives(), TextNatives(), CollectionNatives(), TimeNatives(), RegexNatives()}) {
      for (size_t i = 0; i < table.count; ++i) {
        const Native& native = table.natives[i];
        (*out)[{native.name, static_cast<size_t>(native.arity)}] = &native;
      }
    }
    return out;
  }();
  return *kMap;
}

}  // namespace

const Native* FindNative(const std::string& name, size_t arity) {
  auto it = Natives().find({name, arity});
  return it == Natives().end() ? nullptr : it->second;
}

const Definition* FindDefinition(const std::string& name, size_t arity) {
  auto it = Definitions().find({name, arity});
  return it == Definitions().end() ? nullptr : it->second;
}

const char* RefusedWord(const std::string& name) {
  static const std::map<std::string, const char*>* const kWords = new std::map<std::string, const char*>{
      {"input", "an expression sees only its data"},
      {"inputs", "an expression sees only its data"},
      {"input_filename", "an expression sees only its data"},
      {"env", "an expression sees only its data"},
      {"halt", "an expression cannot end the process"},
      {"halt_error", "an expression cannot end the process; use error"},
      {"get_search_list", "an expression has no modules"},
      {"modulemeta", "an expression has no modules"},
  };
  auto it = kWords->find(name);
  return it == kWords->end() ? nullptr : it->second;
}

std::optional<int> FindFormat(const std::string& name) {
  for (size_t i = 0; i < kFormats.size(); ++i) {
    if (name == kFormats[i]) return static_cast<int>(i);
  }
  return std::nullopt;
}

}  // namespace tutti::engine::expressions
