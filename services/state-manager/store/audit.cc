#include "services/state-manager/store/audit.h"

#include <openssl/sha.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/json/json.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/page_token.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

constexpr size_t kMaxText = 500;
constexpr size_t kMaxDetails = 16384;
constexpr int kVerifyPage = 5000;
constexpr int kMaxFindings = 100;
constexpr size_t kPageBytes = size_t{2} << 20;

#define TUTTI_AUDIT_COLUMNS \
  "SELECT seq, time, tenant, actor, action, resource, origin, outcome, details, hash FROM audit_log "

std::string ZeroHash() { return std::string(SHA256_DIGEST_LENGTH, '\0'); }

v1::AuditRecord FromRow(const Statement& row) {
  v1::AuditRecord out;
  out.set_seq(row.Int(0));
  SetMicros(row.Int(1), out.mutable_time());
  out.set_tenant(row.Text(2));
  out.set_actor(row.Text(3));
  out.set_action(row.Text(4));
  out.set_resource(row.Text(5));
  out.set_origin(row.Text(6));
  out.set_outcome(row.Text(7));
  Json details = Json::parse(row.Text(8), nullptr, false);
  if (details.is_object() && !details.empty()) ToProto(details, out.mutable_details());
  out.set_hash(absl::BytesToHexString(row.Bytes(9)));
  return out;
}

}  // namespace

std::string AuditHash(absl::string_view previous, const v1::AuditRecord& record, int64_t time_micros,
                      absl::string_view details) {
  std::string text(previous);
  auto field = [&text](absl::string_view value) {
    auto size = static_cast<uint64_t>(value.size());
    for (int shift = 56; shift >= 0; shift -= 8) text.push_back(static_cast<char>(size >> shift));
    absl::StrAppend(&text, value);
  };
  field(absl::StrCat(record.seq()));
  field(absl::StrCat(time_micros));
  field(record.tenant());
  field(record.actor());
  field(record.action());
  field(record.resource());
  field(record.origin());
  field(record.outcome());
  field(details);
  std::string out = ZeroHash();
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         reinterpret_cast<unsigned char*>(out.data()));
  return out;
}

absl::Status AuditLog::AppendAuditRecord(Transaction& tx, const v1::AppendAuditRecordRequest& request,
                                         v1::AppendAuditRecordResponse& response) const {
  v1::AuditRecord record = request.record();
  TUTTI_RETURN_IF_ERROR(CheckText("record.tenant", record.tenant(), kMaxText));
  TUTTI_RETURN_IF_ERROR(CheckText("record.actor", record.actor(), kMaxText, /*required=*/true));
  TUTTI_RETURN_IF_ERROR(CheckText("record.action", record.action(), kMaxText, /*required=*/true));
  TUTTI_RETURN_IF_ERROR(CheckText("record.resource", record.resource(), kMaxText));
  TUTTI_RETURN_IF_ERROR(CheckText("record.origin", record.origin(), kMaxText));
  TUTTI_RETURN_IF_ERROR(CheckText("record.outcome", record.outcome(), kMaxText, /*required=*/true));
  std::string details = DumpJson(ToJson(record.details()));
  if (details.size() > kMaxDetails)
    return Invalid("record.details", absl::StrCat("has more than ", kMaxDetails, " bytes"));
  std::string previous;
  int64_t seq = 0;
  {
    Statement head = tx.Prepare("SELECT seq, hash FROM audit_head WHERE id = 1 FOR UPDATE");
    if (head.Step()) seq = head.Int(0) + 1, previous = head.Bytes(1);
    TUTTI_RETURN_IF_ERROR(head.status());
  }
  if (previous.empty()) previous = ZeroHash();
  const int64_t now = tx.NowMicros();
  record.set_seq(seq);
  SetMicros(now, record.mutable_time());
  std::string hash = AuditHash(previous, record, now, details);
  TUTTI_RETURN_IF_ERROR(
      tx.Prepare(
            "INSERT INTO audit_log (seq, time, tenant, actor, action, resource, origin, outcome, details, hash) VALUES "
            "($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
          .BindAll(seq, now, record.tenant(), record.actor(), record.action(), record.resource(), record.origin(),
                   record.outcome(), details, SqlArg::Bytes(hash))
          .Run());
  TUTTI_RETURN_IF_ERROR(
      tx.Prepare("UPDATE audit_head SET seq = $1, hash = $2 WHERE id = 1").BindAll(seq, SqlArg::Bytes(hash)).Run());
  record.set_hash(absl::BytesToHexString(hash));
  *response.mutable_record() = std::move(record);
  return absl::OkStatus();
}

absl::Status AuditLog::ListAuditRecords(Transaction& tx, const v1::ListAuditRecordsRequest& request,
                                        v1::ListAuditRecordsResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(int page, PageSize(request.page_size()));
  Statement rows =
      tx.Prepare(TUTTI_AUDIT_COLUMNS
                 "WHERE seq > $1 AND ($2 = '' OR tenant = $2) AND ($3 = '' OR actor = $3) AND ($4 = '' OR action "
                 "= $4) AND ($5 = '' OR resource = $5) AND time >= $6 AND ($7::bigint = 0 OR time < $7::bigint) "
                 "ORDER BY seq LIMIT $8");
  rows.BindAll(request.after_seq(), request.tenant(), request.actor(), request.action(), request.resource(),
               ToMicros(request.start_time()), ToMicros(request.end_time()), page);
  size_t bytes = 0;
  while (bytes <= kPageBytes && rows.Step()) {
    *response.add_records() = FromRow(rows);
    bytes += response.records().rbegin()->ByteSizeLong();
  }
  return rows.status();
}

absl::Status AuditLog::VerifyAuditLog(Transaction& tx, const v1::VerifyAuditLogRequest& request,
                                      v1::VerifyAuditLogResponse& response) const {
  auto find = [&](int64_t seq, const std::string& problem) {
    if (response.findings_size() >= kMaxFindings) return;
    auto* finding = response.add_findings();
    finding->set_seq(seq);
    finding->set_problem(problem);
  };
  // The end first: what is appended while we read is not ours to look at.
  int64_t head_seq = 0;
  std::string head_hash;
  bool has_head = false;
  {
    Statement head = tx.Prepare("SELECT seq, hash FROM audit_head WHERE id = 1");
    has_head = head.Step();
    if (has_head) head_seq = head.Int(0), head_hash = head.Bytes(1);
    TUTTI_RETURN_IF_ERROR(head.status());
  }
  std::string previous = ZeroHash();
  int64_t expected = 1;
  int64_t last_time = 0;
  for (bool more = true; more;) {
    int count = 0;
    Statement rows =
        tx.Prepare(TUTTI_AUDIT_COLUMNS "WHERE seq >= $1 AND ($3::bigint = 0 OR seq <= $4) ORDER BY seq LIMIT $2");
    rows.BindAll(expected, kVerifyPage, has_head, head_seq);
    while (rows.Step()) {
      ++count;
      v1::AuditRecord record = FromRow(rows);
      std::string hash = rows.Bytes(9);
      if (record.seq() != expected) {
        find(expected, absl::StrCat("records ", expected, " to ", record.seq() - 1, " are missing"));
      }
      if (AuditHash(previous, record, rows.Int(1), rows.Text(8)) != hash && record.seq() == expected) {
        find(record.seq(),
             absl::StrCat(
                 "the record was altered, or put in another one's place",
                 expected > 1 ? absl::StrCat("; or record ", expected - 1, " was, together with its hash") : ""));
      }
      if (rows.Int(1) < last_time) find(record.seq(), "the record is older than the one before it");
      if (request.known_seq() == record.seq() && !request.known_hash().empty() &&
          request.known_hash() != record.hash()) {
        find(record.seq(), "the record does not have the hash that was noted: the log was written anew up to here");
      }
      // The chain goes on from what is stored: one altered record is one finding.
      previous = hash;
      last_time = rows.Int(1);
      expected = record.seq() + 1;
      response.set_records(response.records() + 1);
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
    more = count == kVerifyPage;
  }
  if (!has_head) {
    find(expected, "the end of the chain is missing");
  } else if (head_seq != expected - 1) {
    find(expected, absl::StrCat("records ", expected, " to ", head_seq, " are missing from the end"));
  } else if (head_seq > 0 && head_hash != previous) {
    find(head_seq, "the last record is not the one that was last appended");
  }
  if (request.known_seq() >= expected) find(request.known_seq(), "the record that was noted is missing");
  if (response.records() > 0) response.set_head_hash(absl::BytesToHexString(previous));
  return absl::OkStatus();
}

}  // namespace tutti::state_manager
