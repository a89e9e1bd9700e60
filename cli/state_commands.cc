// Commands on what the state-manager keeps: the audit log and budgets.
#include <iostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cli/commands.h"
#include "runtime/json/json.h"
#include "tutti/state/v1/audit_service.grpc.pb.h"
#include "tutti/state/v1/budget_service.grpc.pb.h"
#include "tutti/state/v1/message_service.grpc.pb.h"

namespace tutti::cli {

namespace v1 = tutti::state::v1;

int VerifyAudit(Client& client, const std::string& known, Format format) {
  auto stub = v1::AuditService::NewStub(client.channel());
  v1::VerifyAuditLogRequest request;
  if (!known.empty()) {
    std::pair<std::string, std::string> parts = absl::StrSplit(known, absl::MaxSplits(':', 1));
    int64_t seq = 0;
    if (!absl::SimpleAtoi(parts.first, &seq) || seq < 1 || parts.second.empty()) {
      std::cerr << "error: --known is SEQ:HASH, as an earlier `tutti audit verify` printed it\n";
      return kUsage;
    }
    request.set_known_seq(seq);
    request.set_known_hash(parts.second);
  }
  v1::VerifyAuditLogResponse response;
  absl::Status status = client.Call(*stub, &v1::AuditService::Stub::VerifyAuditLog, request, response);
  if (!status.ok()) return PrintError(status);
  if (format != Format::kTable) {
    PrintMessage(response, format);
  } else {
    for (const auto& finding : response.findings()) {
      std::cout << "record " << finding.seq() << ": " << finding.problem() << "\n";
    }
    if (response.findings().empty()) {
      std::cout << response.records() << " records, whole";
      if (response.records() > 0)
        std::cout << "; note this elsewhere: " << response.records() << ":" << response.head_hash();
      std::cout << "\n";
    }
  }
  return response.findings().empty() ? kOk : kFailed;
}

int ExportAudit(Client& client) {
  auto stub = v1::AuditService::NewStub(client.channel());
  v1::ListAuditRecordsRequest request;
  request.set_page_size(1000);
  for (;;) {
    v1::ListAuditRecordsResponse response;
    absl::Status status = client.Call(*stub, &v1::AuditService::Stub::ListAuditRecords, request, response);
    if (!status.ok()) return PrintError(status);
    for (const auto& record : response.records()) std::cout << DumpJson(MessageToJson(record)) << "\n";
    if (response.records().empty()) return kOk;
    request.set_after_seq(response.records().rbegin()->seq());
  }
}

int ListMessages(Client& client, Format format) {
  auto stub = v1::MessageService::NewStub(client.channel());
  v1::ListSetAsideMessagesRequest request;
  request.set_page_size(1000);
  v1::ListSetAsideMessagesResponse response;
  absl::Status status = client.Call(*stub, &v1::MessageService::Stub::ListSetAsideMessages, request, response);
  if (!status.ok()) return PrintError(status);
  if (format != Format::kTable) {
    PrintMessage(response, format);
    return kOk;
  }
  std::vector<Row> rows;
  for (const auto& message : response.messages()) {
    rows.push_back({message.message_id(), message.kind(), absl::StrCat(message.attempts()),
                    ShowTime(message.set_aside_time()), message.error()});
  }
  PrintTable({"MESSAGE", "KIND", "ATTEMPTS", "SET ASIDE", "WHY"}, rows);
  return kOk;
}

int RetryMessage(Client& client, const std::string& id, Format format) {
  auto stub = v1::MessageService::NewStub(client.channel());
  v1::RetrySetAsideMessageRequest request;
  request.set_message_id(id);
  v1::RetrySetAsideMessageResponse response;
  absl::Status status = client.Call(*stub, &v1::MessageService::Stub::RetrySetAsideMessage, request, response);
  if (!status.ok()) return PrintError(status);
  if (format == Format::kTable) {
    std::cout << "message " << id << " is delivered again\n";
  } else {
    PrintMessage(response, format);
  }
  return kOk;
}

int ListBudgets(Client& client, const std::string& scope, Format format) {
  auto stub = v1::BudgetService::NewStub(client.channel());
  v1::ListBudgetsRequest request;
  request.set_scope(scope);
  request.set_page_size(1000);
  v1::ListBudgetsResponse response;
  absl::Status status = client.Call(*stub, &v1::BudgetService::Stub::ListBudgets, request, response);
  if (!status.ok()) return PrintError(status);
  if (format != Format::kTable) {
    PrintMessage(response, format);
    return kOk;
  }
  std::vector<Row> rows;
  for (const auto& budget : response.budgets()) {
    const std::string& currency = budget.currency_code();
    auto count = [](bool limited, int64_t value) { return limited ? absl::StrCat(value) : std::string("-"); };
    rows.push_back({budget.scope(), budget.has_limit_nano_units() ? ShowCost(budget.limit_nano_units(), currency) : "-",
                    ShowCost(budget.spent().nano_units(), currency), ShowCost(budget.reserved().nano_units(), currency),
                    count(budget.has_limit_tokens(), budget.limit_tokens()), absl::StrCat(budget.spent().tokens()),
                    count(budget.has_limit_calls(), budget.limit_calls()), absl::StrCat(budget.spent().calls()),
                    budget.has_window() ? absl::StrCat(budget.window().seconds(), " s") : "for ever"});
  }
  PrintTable({"SCOPE", "LIMIT", "SPENT", "RESERVED", "TOKENS MAX", "SPENT", "CALLS MAX", "MADE", "WINDOW"}, rows);
  return kOk;
}

int SetBudget(Client& client, const BudgetOptions& options, Format format) {
  auto stub = v1::BudgetService::NewStub(client.channel());
  v1::SetBudgetRequest request;
  auto* budget = request.mutable_budget();
  budget->set_scope(options.scope);
  budget->set_currency_code(options.currency);
  if (!options.money.empty()) {
    // Decimal, without a float on the way: up to nine digits after the point.
    std::pair<std::string, std::string> parts = absl::StrSplit(options.money, absl::MaxSplits('.', 1));
    parts.second.resize(9, '0');
    int64_t whole = 0, nano = 0;
    if (!absl::SimpleAtoi(parts.first, &whole) || !absl::SimpleAtoi(parts.second, &nano) || whole < 0 ||
        whole > 100000000) {
      std::cerr << "error: --limit is an amount of money, for example 12.50\n";
      return kUsage;
    }
    budget->set_limit_nano_units(whole * 1000000000 + nano);
  }
  if (options.tokens >= 0) budget->set_limit_tokens(options.tokens);
  if (options.calls >= 0) budget->set_limit_calls(options.calls);
  if (options.window_seconds > 0) budget->mutable_window()->set_seconds(options.window_seconds);
  v1::SetBudgetResponse response;
  absl::Status status = client.Call(*stub, &v1::BudgetService::Stub::SetBudget, request, response);
  if (!status.ok()) return PrintError(status);
  return ListBudgets(client, options.scope, format);
}

int Spending(Client& client, const std::string& scope, int level, const std::string& label, Format format) {
  auto stub = v1::BudgetService::NewStub(client.channel());
  v1::ReportSpendingRequest request;
  request.set_scope(scope);
  request.set_level(level);
  request.set_label(label);
  v1::ReportSpendingResponse response;
  do {
    v1::ReportSpendingResponse page;
    absl::Status status = client.Call(*stub, &v1::BudgetService::Stub::ReportSpending, request, page);
    if (!status.ok()) return PrintError(status);
    request.set_page_token(page.next_page_token());
    for (auto& row : *page.mutable_rows()) *response.add_rows() = std::move(row);
  } while (!request.page_token().empty());
  if (format != Format::kTable) {
    PrintMessage(response, format);
    return kOk;
  }
  std::vector<Row> rows;
  for (const auto& row : response.rows()) {
    rows.push_back({row.key().empty() ? "(all)" : row.key(), ShowCost(row.spent().nano_units(), row.currency_code()),
                    absl::StrCat(row.spent().tokens()), absl::StrCat(row.spent().calls())});
  }
  PrintTable({label.empty() ? "SCOPE" : "LABEL", "SPENT", "TOKENS", "CALLS"}, rows);
  return kOk;
}

}  // namespace tutti::cli
