// Looking for things in a spec, however deep they stand.
#pragma once

#include <functional>

#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {

// Whether a field of that name is set in the message or in a message of the workflow package below it.
bool HoldsField(const google::protobuf::Message& message, const char* field_name);

// Calls `visit` for each step below, outermost first.
void VisitSteps(const google::protobuf::Message& message,
                const std::function<void(const tutti::workflow::v1::Step&)>& visit);

}  // namespace tutti::engine
