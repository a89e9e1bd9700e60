#include "services/agent-manager/adapters/text_publisher.h"

#include "runtime/async/sleep.h"
#include "runtime/rpc/client_calls.h"

namespace tutti::agent_manager {
namespace {

// A person sees no difference to each token for itself; the store and the network do.
constexpr absl::Duration kPace = absl::Milliseconds(50);
constexpr absl::Duration kTimeout = absl::Seconds(2);
// The rest of a speech, so that it comes before the step's end.
constexpr absl::Duration kLast = absl::Milliseconds(300);
// Under the store's limit with all that stands around it.
constexpr size_t kLargestPiece = 3000;
// What a speech may be ahead of its publication.
constexpr size_t kMostWaiting = 64;
constexpr size_t kLongestName = 500;

// The most of `text` that is no longer than `size` and ends between characters.
absl::string_view Head(absl::string_view text, size_t size) {
  if (text.size() <= size) return text;
  while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) --size;
  return text.substr(0, size);
}

}  // namespace

TextPublisher::TextPublisher(RpcPeer state_manager, const LocalMethods& local, Executor& executor, TimerService& timers,
                             Tracer& tracer)
    : local_(local), peer_(std::move(state_manager)), executor_(executor), timers_(timers), tracer_(tracer) {}

void TextPublisher::Stop() {
  stop_.request_stop();
  scope_.CloseAndWait();
}

std::shared_ptr<TextPublisher::Speech> TextPublisher::Open(const tutti::agent::v1::ExecuteRequest& request,
                                                           const std::string& agent) {
  if (request.run_id().empty()) return nullptr;
  // A name that is cut short is still the same for all pieces.
  tutti::state::v1::LiveText about;
  about.set_run_id(request.run_id());
  about.set_path(std::string(Head(request.step_path(), kLongestName)));
  about.set_attempt(std::string(Head(request.idempotency_key(), kLongestName)));
  about.set_agent(agent);
  return std::make_shared<Speech>(*this, std::move(about));
}

TextPublisher::Speech::Speech(TextPublisher& publisher, tutti::state::v1::LiveText about)
    : publisher_(publisher), next_(std::move(about)) {}

void TextPublisher::Speech::Say(int turn, absl::string_view piece) {
  if (turn != next_.turn()) {
    next_.set_turn(turn);
    next_.set_offset(0);
  }
  while (!piece.empty()) {
    bool goes_on = !waiting_.empty() && waiting_.back().turn() == turn && waiting_.back().text().size() < kLargestPiece;
    if (!goes_on) {
      if (waiting_.size() >= kMostWaiting) {  // who listens sees a gap
        next_.set_offset(next_.offset() + static_cast<int64_t>(piece.size()));
        break;
      }
      waiting_.push_back(next_);
    }
    absl::string_view head = Head(piece, kLargestPiece - waiting_.back().text().size());
    if (head.empty()) head = Head(piece, std::min<size_t>(piece.size(), 4));  // one character more does no harm
    waiting_.back().mutable_text()->append(head.data(), head.size());
    next_.set_offset(next_.offset() + static_cast<int64_t>(head.size()));
    piece.remove_prefix(head.size());
  }
  if (publishing_ || waiting_.empty()) return;
  publishing_ = publisher_.scope_.Spawn(publisher_.executor_, publisher_.Publish(shared_from_this()));
}

Task<void> TextPublisher::Speech::End() {
  auto self = shared_from_this();
  ending_.request_stop();
  if (!publishing_) co_return;
  uint64_t timer = publisher_.timers_.After(kLast, [self] { self->published_.Set(true); });
  co_await published_.Wait(publisher_.executor_);
  publisher_.timers_.Cancel(timer);
}

Task<void> TextPublisher::Publish(std::shared_ptr<Speech> speech) {
  while (!speech->waiting_.empty()) {
    tutti::state::v1::PublishTextRequest request;
    *request.mutable_text() = std::move(speech->waiting_.front());
    speech->waiting_.pop_front();
    CallContext call(executor_, tracer_);
    call.stop = stop_.get_token();
    call.trace = TraceContext{.trace_high = 1, .trace_low = 1, .span = 1, .sampled = false};
    tutti::state::v1::PublishTextResponse response;
    absl::Status status = co_await CallUnary(local_, call, peer_, "tutti.state.v1.JournalService/PublishText",
                                             std::move(request), response, kTimeout);
    if (!status.ok()) speech->waiting_.clear();  // what comes later may get through
    if (speech->waiting_.empty() || speech->waiting_.size() == 1) {
      co_await Sleep(timers_, executor_, kPace, speech->ending_.get_token());
    }
  }
  speech->publishing_ = false;
  if (speech->ending_.stop_requested()) speech->published_.Set(true);
}

}  // namespace tutti::agent_manager
