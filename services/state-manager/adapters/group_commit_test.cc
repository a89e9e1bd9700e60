#include "services/state-manager/adapters/group_commit.h"

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <semaphore>

#include "runtime/status/error.h"
#include "runtime/status/testing/matchers.h"

namespace tutti::state_manager {
namespace {

using tutti::testing::HasCode;
using tutti::testing::IsOk;

// Ops wait while the one before them is being committed.
class Held {
 public:
  explicit Held(GroupCommit::Options options)
      : commit_(std::move(options), [this](std::vector<WriteOp>& batch) {
          begun_.release();
          go_.acquire();
          for (auto& op : batch) op.finish(absl::OkStatus());
        }) {}
  std::future<absl::Status> Enqueue(size_t bytes) {
    auto answer = std::make_shared<std::promise<absl::Status>>();
    WriteOp op;
    op.bytes = bytes;
    op.finish = [answer](const absl::Status& status) { answer->set_value(status); };
    commit_.Enqueue(std::move(op));
    return answer->get_future();
  }
  void AwaitCommit() { begun_.acquire(); }
  void LetGo() { go_.release(); }

 private:
  std::counting_semaphore<> begun_{0}, go_{0};
  GroupCommit commit_;
};

TEST(GroupCommitTest, WhatWaitsIsBoundedInBytesAndInNumber) {
  for (bool by_bytes : {false, true}) {
    Held held({.name = "test", .max_queue = by_bytes ? 1000U : 2U, .max_queue_bytes = by_bytes ? 1000U : 1U << 30});
    auto first = held.Enqueue(600);
    held.AwaitCommit();
    auto second = held.Enqueue(300), third = held.Enqueue(300), fourth = held.Enqueue(by_bytes ? 600 : 1);
    absl::Status refusal = fourth.get();
    EXPECT_THAT(refusal, HasCode(absl::StatusCode::kResourceExhausted)) << by_bytes;
    EXPECT_EQ(ReasonOf(refusal), "STORE_BUSY");
    EXPECT_GT(RetryDelayOf(refusal), absl::ZeroDuration());
    held.LetGo();
    EXPECT_THAT(first.get(), IsOk());
    held.AwaitCommit();  // the two that waited, together
    held.LetGo();
    EXPECT_THAT(second.get(), IsOk());
    EXPECT_THAT(third.get(), IsOk());
    // And there is room again.
    auto fifth = held.Enqueue(900);
    held.AwaitCommit();
    held.LetGo();
    EXPECT_THAT(fifth.get(), IsOk());
  }
}

}  // namespace
}  // namespace tutti::state_manager
