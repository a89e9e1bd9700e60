// What waits to be written to a stream, and who writes it: what becomes ready while a message is on its way goes with
// the next.
#pragma once

#include <deque>
#include <memory>
#include <utility>

#include "runtime/async/one_shot.h"
#include "runtime/async/task.h"

namespace tutti {

// All of it on one executor. Who fills it bounds it.
template <class Message>
class MessageQueue {
 public:
  // Messages are filled up to `most_bytes`.
  MessageQueue(Executor& executor, size_t most_bytes) : executor_(executor), most_bytes_(most_bytes) {}

  // The message that what takes `bytes` more goes with. Wake() when it is in it.
  Message& Room(size_t bytes) {
    if (messages_.empty() || last_bytes_ + bytes > most_bytes_) {
      messages_.emplace_back();
      last_bytes_ = 0;
    }
    last_bytes_ += bytes;
    return messages_.back();
  }
  size_t size() const { return messages_.size(); }
  bool empty() const { return messages_.empty(); }
  std::deque<Message>& messages() { return messages_; }

  // There is more to write, or another reason to look.
  void Wake() {
    if (wake_) wake_->Set(true);
  }
  // Until Wake. By the one writer, right after it saw that there was nothing to do.
  Task<void> AwaitWake() {
    wake_ = std::make_unique<OneShot<bool>>();
    co_await wake_->Wait(executor_);
    wake_.reset();
  }
  // Begins to write the next message when the one before is written. False: the other end has gone. The writer is a
  // ClientBidiStream or a BehindWriter; before the queue ends, its Written() is to be awaited.
  template <class Writer>
  Task<bool> WriteNext(Writer& writer) {
    const bool written = co_await writer.Written();
    if (!written) co_return false;
    if (messages_.empty()) co_return true;
    writing_ = std::move(messages_.front());
    messages_.pop_front();
    writer.StartWriting(writing_);
    co_return true;
  }

 private:
  Executor& executor_;
  const size_t most_bytes_;
  std::deque<Message> messages_;
  size_t last_bytes_ = 0;  // of the last of them
  Message writing_;
  std::unique_ptr<OneShot<bool>> wake_;
};

}  // namespace tutti
