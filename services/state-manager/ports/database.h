// What the state-manager needs of a database engine: transactions, statements, and a queue that commits many callers'
// writes as one. Everything that is stored is written once, in the SQL below, in store/; an engine is an adapter of
// this header (docs/adr/0007).
//
// The SQL is PostgreSQL's, within what every engine can be made to speak: parameters are $1, $2 …; lists are
// `x = ANY($1)` bound with BindList; row locks are FOR UPDATE and FOR SHARE; casts are `::type`; upserts are ON
// CONFLICT. Where two engines have no common form (JSON operators, full text) Transaction::dialect() chooses. Times are
// microseconds since 1970 UTC, money is integer nano-units, in BIGINT columns.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tutti::state_manager {

enum class Dialect { kSqlite, kPostgres };

// A value on its way into a statement; borrows text and bytes.
class SqlArg {
 public:
  enum class Kind { kNull, kInt, kDouble, kText, kBytes };
  SqlArg(int64_t value) : kind(Kind::kInt), integer(value) {}           // NOLINT: arguments convert
  SqlArg(int value) : SqlArg(static_cast<int64_t>(value)) {}            // NOLINT
  SqlArg(bool value) : SqlArg(static_cast<int64_t>(value ? 1 : 0)) {}   // NOLINT
  SqlArg(double value) : kind(Kind::kDouble), real(value) {}            // NOLINT
  SqlArg(absl::string_view value) : kind(Kind::kText), text(value) {}   // NOLINT
  SqlArg(const std::string& value) : kind(Kind::kText), text(value) {}  // NOLINT
  SqlArg(const char* value) : kind(Kind::kText), text(value) {}         // NOLINT
  static SqlArg Bytes(absl::string_view value) { return SqlArg(Kind::kBytes, value); }
  static SqlArg Null() { return SqlArg(Kind::kNull, ""); }
  // Empty text as NULL.
  static SqlArg TextOrNull(absl::string_view value) { return value.empty() ? Null() : SqlArg(value); }

  Kind kind;
  int64_t integer = 0;
  double real = 0;
  absl::string_view text;
  bool outlives_run = false;  // what `text` points to stays until the statement has run; see Statement::RunWith

 private:
  SqlArg(Kind kind, absl::string_view value) : kind(kind), text(value) {}
};

// Values of one column, for statements that take rows by columns (`unnest($1::bigint[], $2::text[])`), on PostgreSQL:
// they travel as they are in memory and not as text. Borrows texts and bytes.
class SqlColumn {
 public:
  enum class Kind { kInts, kTexts, kBytes };
  explicit SqlColumn(Kind kind) : kind_(kind) {}
  void Add(int64_t value) { ints_.push_back(value); }
  void Add(absl::string_view value) { texts_.push_back(value); }
  Kind kind() const { return kind_; }
  const std::vector<int64_t>& ints() const { return ints_; }
  const std::vector<absl::string_view>& texts() const { return texts_; }  // or bytes

 private:
  Kind kind_;
  std::vector<int64_t> ints_;
  std::vector<absl::string_view> texts_;
};

// The engine's half of a statement.
class StatementImpl {
 public:
  virtual ~StatementImpl() = default;
  virtual void Bind(int position, const SqlArg& arg) = 0;  // from 1
  virtual void BindList(int position, const std::vector<std::string>& values) = 0;
  virtual void BindColumn(int position, const SqlColumn& column) = 0;
  virtual bool Step() = 0;
  // See Statement::RunAndCommit.
  virtual bool StepAndCommit() { return Step(); }
  virtual int64_t Changes() const = 0;
  virtual bool IsNull(int column) const = 0;
  virtual int64_t Int(int column) const = 0;
  virtual double Double(int column) const = 0;
  virtual std::string Text(int column) const = 0;
  virtual std::string Bytes(int column) const = 0;
  virtual const absl::Status& status() const = 0;
  virtual void Release() = 0;  // the user has done with it
};

// A statement in use: bind in order, then Step or Run. Use of the same text within itself is not allowed.
class Statement {
 public:
  explicit Statement(StatementImpl* impl) : impl_(impl) {}
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  Statement(Statement&& other) noexcept : impl_(std::exchange(other.impl_, nullptr)), next_(other.next_) {}
  ~Statement() {
    if (impl_) impl_->Release();
  }

  Statement& Bind(const SqlArg& arg) {
    impl_->Bind(next_++, arg);
    return *this;
  }
  template <class... Args>
  Statement& BindAll(const Args&... args) {
    (Bind(SqlArg(args)), ...);
    return *this;
  }
  Statement& BindBytes(absl::string_view bytes) { return Bind(SqlArg::Bytes(bytes)); }
  // For `= ANY($n)`.
  Statement& BindList(const std::vector<std::string>& values) {
    impl_->BindList(next_++, values);
    return *this;
  }
  // For `unnest($n::type[])`. The statement's other parameters are then of type bigint, text or bytea, and none is
  // null.
  Statement& BindColumn(const SqlColumn& column) {
    impl_->BindColumn(next_++, column);
    return *this;
  }
  // True: a row is there. Errors are kept: see status().
  bool Step() { return impl_->Step(); }
  // For statements whose rows nobody reads.
  absl::Status Run() {
    impl_->Step();
    return impl_->status();
  }
  // BindAll and Run in one: an engine in this process need not copy what the arguments point to.
  template <class... Args>
  absl::Status RunWith(const Args&... args) {
    auto bind = [this](SqlArg arg) {
      arg.outlives_run = true;
      Bind(arg);
    };
    (bind(SqlArg(args)), ...);
    return Run();
  }
  // As Run, and the last statement of a transaction that is alone(): an engine that is a network away may send it and
  // its commit as one, and then nothing follows it. Only for what may be repeated when its answer is lost.
  absl::Status RunAndCommit() {
    impl_->StepAndCommit();
    return impl_->status();
  }
  // The same with rows: the first Step.
  bool StepAndCommit() { return impl_->StepAndCommit(); }
  // Rows written, after Run or the first Step.
  int64_t Changes() const { return impl_->Changes(); }
  const absl::Status& status() const { return impl_->status(); }
  bool IsNull(int column) const { return impl_->IsNull(column); }
  int64_t Int(int column) const { return impl_->Int(column); }
  double Double(int column) const { return impl_->Double(column); }
  std::string Text(int column) const { return impl_->Text(column); }
  std::string Bytes(int column) const { return impl_->Bytes(column); }

 private:
  StatementImpl* impl_;
  int next_ = 1;
};

// What others are told after a commit, in this process and in its replicas. News say where to look, not what is there.
struct News {
  enum class Kind { kRun, kClaimable, kCancel, kInbox, kEnded, kContext, kOutbox, kText };
  Kind kind;
  std::string id;         // the run's or context's
  std::string instance;   // of kCancel, kInbox and kEnded: whom it concerns
  std::string text = {};  // of kText: what is said, a serialized LiveText; these news alone carry what they tell of
  friend bool operator==(const News&, const News&) = default;
};

// One transaction, or one read. Used by one thread at a time.
class Transaction {
 public:
  virtual ~Transaction() = default;
  virtual Dialect dialect() const = 0;
  bool sqlite() const { return dialect() == Dialect::kSqlite; }
  // Prepared once per text and connection: texts come from a bounded set.
  virtual Statement Prepare(absl::string_view sql) = 0;
  // The database's time (so that the clocks of replicas do not matter), the same within a transaction.
  virtual int64_t NowMicros() = 0;
  // What is to be added to the engine's clock where a statement reads it: NowMicros is that, with one exchange more.
  virtual int64_t ClockShiftMicros() const { return 0; }
  // Several statements, no parameters.
  virtual absl::Status Execute(const std::string& script) = 0;
  // The first error of the engine in this transaction: whatever was written is undone.
  virtual const absl::Status& failure() const = 0;
  // Rows written so far.
  virtual int64_t rows_written() const = 0;
  // Soon after this is committed, what was deleted is in none of the engine's own files any more, also not where it
  // keeps what it would recover from. Of a server, its administrator sees to that.
  virtual void WipeDeleted() {}
  // Nobody but one BatchWriter writes in it.
  bool alone() const { return alone_; }
  void set_alone(bool alone) { alone_ = alone; }

  void Announce(News news) { news_.push_back(std::move(news)); }
  std::vector<News> TakeNews() { return std::exchange(news_, {}); }

 private:
  std::vector<News> news_;
  bool alone_ = false;
};

struct WriteOp;

// The lane of what belongs together: writes of one run, one context …
inline uint64_t LaneOf(absl::string_view key) { return std::hash<std::string_view>()({key.data(), key.size()}); }

// Applies writes of one kind set by set instead of one by one; see WriteOp::batch.
class BatchWriter {
 public:
  virtual ~BatchWriter() = default;
  // Answers each op in its own `item`; a status that is not OK is an error of the database.
  virtual absl::Status ApplyAll(Transaction& transaction, const std::vector<void*>& items) = 0;
};

// A writer whose writes need not be in the tables when they are acknowledged. An engine that keeps a log of its own
// (docs/adr/0015) takes them from it as one record, and has it put them into the tables later, many at once, and before
// anybody else reads or writes. All of it but ApplySealed is called on the thread that writes.
class DeferringWriter : public BatchWriter {
 public:
  // Instead of ApplyAll: answers each item as that would, and returns the record from which Replay makes the same
  // writes. Empty: this set must be applied, and nothing has changed. Only reads by `tx`, which may lack what is
  // deferred.
  virtual absl::StatusOr<std::string> Defer(Transaction& tx, const std::vector<void*>& items) = 0;
  // The record of the last Defer is on the disk, or is not and the items will be applied.
  virtual void OnDeferred(bool durable) = 0;
  // Rows that wait to be put into the tables, but for those that are sealed.
  virtual size_t deferred_rows() const = 0;
  // What is deferred by now is one part, what comes from now on the next. Only when no part is sealed.
  virtual void Seal() = 0;
  // Puts the sealed part into the tables, perhaps while others are deferred. Again, if the transaction was undone.
  virtual absl::Status ApplySealed(Transaction& tx) = 0;
  virtual void OnSealedApplied() = 0;  // and committed
  // Puts all of it there.
  virtual absl::Status ApplyDeferred(Transaction& tx) = 0;
  virtual void OnApplied() = 0;
  // Others have written to the tables: what was known of them may have changed.
  virtual void OnTablesChanged() = 0;
  // At start, before anything else: what the record stands for is deferred, as when it was made.
  virtual absl::Status Replay(Transaction& tx, absl::string_view record) = 0;
};

// A write that waits for a commit.
struct WriteOp {
  // Writes with an equal lane are committed in the order given; lanes may commit beside each other.
  uint64_t lane = 0;
  // May run more than once, when a transaction was undone. Its own refusal of the request is a status too: what it has
  // written is then undone, and nobody else's.
  absl::AnyInvocable<absl::Status(Transaction&)> apply;
  // Instead of `apply`: the ops of one transaction with the same writer are applied in one call, before the others.
  // Without either nothing is written, but what was written before is in the tables when it finishes.
  BatchWriter* batch = nullptr;
  void* item = nullptr;
  // About what it keeps in memory while it waits, where that may be much.
  size_t bytes = 0;
  // After the commit (OK), or the error: the op's own, or the database's (UNAVAILABLE: nothing is known to be written,
  // and an idempotent request may be repeated).
  absl::AnyInvocable<void(const absl::Status&)> finish;
};

struct ReadOp {
  // May be answered from a replica that lags behind.
  bool allow_stale = false;
  // All statements see one state.
  bool snapshot = false;
  absl::AnyInvocable<absl::Status(Transaction&)> query;
  absl::AnyInvocable<void(const absl::Status&)> finish;
};

// Told after commits, here or in another replica, and of what is announced. Called on any thread: it must only hand
// over.
class NewsListener {
 public:
  virtual ~NewsListener() = default;
  virtual void OnNews(const std::vector<News>& news) = 0;
  // News may have been missed (the connection for them was away): everybody looks again.
  virtual void OnNewsLost() = 0;
};

// Thread safe. Ends by destruction, after which everything queued has been answered.
class Database {
 public:
  virtual ~Database() = default;
  virtual Dialect dialect() const = 0;
  // RESOURCE_EXHAUSTED at once when too many wait.
  virtual void Write(WriteOp op) = 0;
  virtual void Read(ReadOp op) = 0;
  // OK, or why writes are refused now although reads are answered (RESOURCE_EXHAUSTED: the disk is full).
  virtual absl::Status Writable() const { return absl::OkStatus(); }
  // News of what is not in the database, here and in the replicas. Never blocks.
  virtual void Announce(std::vector<News> news) = 0;
};

}  // namespace tutti::state_manager
