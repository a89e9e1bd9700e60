// Early returns for absl::Status, plain and inside coroutines.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define TUTTI_STATUS_CONCAT_INNER_(a, b) a##b
#define TUTTI_STATUS_CONCAT_(a, b) TUTTI_STATUS_CONCAT_INNER_(a, b)

#define TUTTI_RETURN_IF_ERROR(expr)                                                     \
  do {                                                                                  \
    if (absl::Status tutti_status_ = (expr); !tutti_status_.ok()) return tutti_status_; \
  } while (false)

#define TUTTI_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                                 \
  if (!tmp.ok()) return std::move(tmp).status();     \
  lhs = *std::move(tmp)
#define TUTTI_ASSIGN_OR_RETURN(lhs, expr) \
  TUTTI_ASSIGN_OR_RETURN_IMPL_(TUTTI_STATUS_CONCAT_(tutti_or_, __LINE__), lhs, expr)

#define TUTTI_CO_RETURN_IF_ERROR(expr)                                                     \
  do {                                                                                     \
    if (absl::Status tutti_status_ = (expr); !tutti_status_.ok()) co_return tutti_status_; \
  } while (false)

#define TUTTI_CO_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                                    \
  if (!tmp.ok()) co_return std::move(tmp).status();     \
  lhs = *std::move(tmp)
#define TUTTI_CO_ASSIGN_OR_RETURN(lhs, expr) \
  TUTTI_CO_ASSIGN_OR_RETURN_IMPL_(TUTTI_STATUS_CONCAT_(tutti_or_, __LINE__), lhs, expr)
