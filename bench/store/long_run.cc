#include <cstdio>
#include <future>

#include "absl/strings/str_cat.h"
#include "bench/store/appends.h"
#include "bench/store/reads.h"

namespace tutti::state_manager {

void ReadLongRun(OpenedStore& store, const char* engine) {
  std::string run = store.NewRuns(1)[0];
  constexpr int kEntries = 10000;
  for (int seq = 1; seq <= kEntries;) {
    v1::AppendRequest request = OneEntry(run, seq);
    for (int i = 1; i < 500; ++i) *request.add_entries() = OneEntry(run, seq).entries(0);
    for (int i = 0; i < 500; ++i) {
      request.mutable_entries(i)->mutable_step_completed()->set_path(absl::StrCat("loop/", seq + i, "/step"));
    }
    std::promise<void> done;
    store.store.journal.Append(*store.opened.database, request, [&](v1::AppendResponse) { done.set_value(); });
    done.get_future().wait();
    seq += 500;
  }
  auto begin = Steady::now();
  int64_t after = 0, count = 0;
  for (bool more = true; more;) {
    absl::Status status = store.Read([&](Transaction& tx) {
      auto page = store.store.journal.ReadPage(tx, run, after, 256);
      if (!page.ok()) return page.status();
      more = !page->entries().empty();
      if (more) after = page->entries().rbegin()->seq();
      count += page->entries_size();
      return absl::OkStatus();
    });
    if (!status.ok()) break;
  }
  std::printf("%-9s read of a run of %ld entries: %.1f ms\n", engine, static_cast<long>(count), Seconds(begin) * 1000);
}

}  // namespace tutti::state_manager
