// What the files of class Memories share; for them only.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/state-manager/store/memories.h"

namespace tutti::state_manager {

inline constexpr size_t kMaxMemoryBytes = 65536;

#define TUTTI_MEMORY_COLUMNS                                                                                          \
  "memory_id, tenant, agent, kind, scope, content, importance, tags, create_time, access_time, expire_time, number, " \
  "embedder"

inline std::string PlaceOfMemory(absl::string_view id, absl::string_view field) {
  return absl::StrCat("memories/", id, "/", field);
}

// Of length 1. INVALID_ARGUMENT: 8 to 4096 finite numbers, and who made them.
absl::StatusOr<std::vector<float>> CheckEmbedding(const google::protobuf::RepeatedField<float>& given,
                                                  absl::string_view embedder);

// A filter as SQL.
struct Memories::Condition {
  std::string sql;
  std::vector<std::string> texts;
  std::vector<int64_t> numbers;
  std::vector<bool> is_text;
  int next;

  void Add(absl::string_view before, const std::string& text, absl::string_view after = "") {
    absl::StrAppend(&sql, before, "$", next++, after);
    texts.push_back(text);
    is_text.push_back(true);
  }
  void Add(absl::string_view before, int64_t number) {
    absl::StrAppend(&sql, before, "$", next++);
    numbers.push_back(number);
    is_text.push_back(false);
  }
  void Bind(Statement& statement) const {
    size_t text = 0, number = 0;
    for (bool t : is_text) {
      if (t) {
        statement.Bind(texts[text++]);
      } else {
        statement.Bind(numbers[number++]);
      }
    }
  }
};

}  // namespace tutti::state_manager
