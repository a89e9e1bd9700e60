#include "runtime/http/event_stream.h"

#include <gtest/gtest.h>

#include <vector>

namespace tutti {
namespace {

using Events = std::vector<std::pair<std::string, std::string>>;

Events Read(const std::vector<absl::string_view>& pieces) {
  Events events;
  EventStreamParser parser([&](absl::string_view type, absl::string_view data) { events.emplace_back(type, data); });
  for (absl::string_view piece : pieces) parser.Feed(piece);
  return events;
}

TEST(EventStream, IsReadWhereverItIsCut) {
  const std::string text =
      "\xEF\xBB\xBF: a comment\ndata: one\n\nevent: two\r\ndata:first\r\ndata:  second\r\nid: 7\r\nretry: 10\r\n\r\n"
      "event: without data\n\ndata\n\ndata: unfinished\r\rignored: x\n\ndata: cut off\n";
  const Events expected = {{"", "one"}, {"two", "first\n second"}, {"", ""}, {"", "unfinished"}};
  EXPECT_EQ(Read({text}), expected);
  for (size_t i = 0; i <= text.size(); ++i) {
    for (size_t j = i; j <= text.size(); ++j) {
      absl::string_view view = text;
      ASSERT_EQ(Read({view.substr(0, i), view.substr(i, j - i), view.substr(j)}), expected) << i << " " << j;
    }
  }
}

}  // namespace
}  // namespace tutti
