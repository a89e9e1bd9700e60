#include "services/state-manager/store/key_ring.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {

constexpr size_t kKeyBytes = 32;
constexpr size_t kMaxIdBytes = 64;

absl::Status Refuse(absl::string_view where, absl::string_view what) {
  return Error(absl::StatusCode::kInvalidArgument, "ENCRYPTION_KEY",
               absl::StrCat("encryption key ", where, ": ", what));
}

absl::StatusOr<std::string> Decode(absl::string_view where, absl::string_view text) {
  if (text.size() == kKeyBytes) return std::string(text);
  text = absl::StripAsciiWhitespace(text);
  bool hex = text.size() == 2 * kKeyBytes;
  for (char c : text) hex &= absl::ascii_isxdigit(static_cast<unsigned char>(c)) != 0;
  if (hex) return absl::HexStringToBytes(text);
  std::string out;
  if ((absl::Base64Unescape(text, &out) || absl::WebSafeBase64Unescape(text, &out)) && out.size() == kKeyBytes) {
    return out;
  }
  return Refuse(where, "is not 32 bytes, raw, as 64 hex digits or as base64; make one with `openssl rand -hex 32`");
}

absl::Status CheckId(absl::string_view where, absl::string_view id) {
  bool good = !id.empty() && id.size() <= kMaxIdBytes;
  for (char c : id) good &= absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  if (good) return absl::OkStatus();
  return Refuse(where, "its id is not 1 to 64 letters, digits, dots, dashes and underscores");
}

}  // namespace

absl::StatusOr<Keys> LoadKeys(const std::string& folder, const std::vector<std::string>& pairs,
                              const std::string& active) {
  Keys keys;
  if (!folder.empty()) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
      if (entry.path().extension() != ".key") continue;
      std::string id = entry.path().stem();
      TUTTI_RETURN_IF_ERROR(CheckId(entry.path().string(), id));
      std::ifstream in(entry.path(), std::ios::binary);
      std::stringstream text;
      text << in.rdbuf();
      if (!in) return Refuse(entry.path().string(), "cannot be read");
      TUTTI_ASSIGN_OR_RETURN(keys.by_id[id], Decode(entry.path().string(), text.str()));
    }
    if (error) return Refuse(folder, absl::StrCat("the folder cannot be read: ", error.message()));
  }
  for (const auto& pair : pairs) {
    std::pair<std::string, std::string> parts = absl::StrSplit(pair, absl::MaxSplits(':', 1));
    TUTTI_RETURN_IF_ERROR(CheckId("in the configuration", parts.first));
    TUTTI_ASSIGN_OR_RETURN(keys.by_id[parts.first], Decode(parts.first, parts.second));
  }
  if (!folder.empty() && keys.by_id.empty()) return Refuse(folder, "the folder holds no file `<id>.key`");
  if (!active.empty() && !keys.by_id.contains(active)) {
    return Refuse(active, "it is to be the active one and is not among the keys given");
  }
  if (!keys.by_id.empty()) keys.active = active.empty() ? keys.by_id.rbegin()->first : active;
  return keys;
}

}  // namespace tutti::state_manager
