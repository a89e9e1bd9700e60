#include "services/state-manager/domain/ngram_embedder.h"

#include <cmath>
#include <unordered_map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace tutti::state_manager {
namespace {

// FNV-1a, 64 bits: fixed for ever, unlike a library's hash.
uint64_t Hash(absl::string_view text, uint64_t seed) {
  uint64_t hash = 14695981039346656037ULL ^ seed;
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  hash ^= hash >> 29;
  return hash * 0x9e3779b97f4a7c15ULL;
}

// Letters and digits of ASCII in lower case, and every byte beyond ASCII: words of any script stay whole.
std::vector<std::string> Words(absl::string_view text) {
  std::vector<std::string> out;
  std::string word;
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 || absl::ascii_isalnum(byte)) {
      word.push_back(absl::ascii_tolower(byte));
    } else if (!word.empty()) {
      out.push_back(std::move(word));
      word.clear();
    }
  }
  if (!word.empty()) out.push_back(std::move(word));
  return out;
}

}  // namespace

std::vector<float> NgramEmbedder::Embed(absl::string_view text) const {
  std::unordered_map<uint64_t, float> features;
  std::vector<std::string> words = Words(text);
  for (size_t i = 0; i < words.size(); ++i) {
    features[Hash(words[i], 1)] += 1.0F;
    if (i > 0) features[Hash(absl::StrCat(words[i - 1], " ", words[i]), 2)] += 0.5F;
    std::string padded = absl::StrCat("^", words[i], "$");
    for (size_t at = 0; at + 3 <= padded.size(); ++at) features[Hash(padded.substr(at, 3), 3)] += 0.3F;
  }
  std::vector<float> out(kDimensions, 0.0F);
  for (const auto& [hash, count] : features) {
    float weight = count < 1.0F ? count : 1.0F + std::log(count);
    out[hash % kDimensions] += (hash >> 63) != 0 ? weight : -weight;
  }
  double norm = 0;
  for (float x : out) norm += static_cast<double>(x) * x;
  if (norm > 0) {
    for (float& x : out) x = static_cast<float>(x / std::sqrt(norm));
  }
  return out;
}

}  // namespace tutti::state_manager
