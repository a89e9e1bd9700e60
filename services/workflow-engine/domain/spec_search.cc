#include "services/workflow-engine/domain/spec_search.h"

#include <vector>

namespace tutti::engine {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// The set fields; of those that are messages of the workflow package, each message.
void ForEachField(const Message& message, const std::function<void(const FieldDescriptor&)>& on_field,
                  const std::function<void(const Message&)>& on_message) {
  const auto* reflection = message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const auto* field : fields) {
    on_field(*field);
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_map()) continue;
    if (field->message_type()->file()->package() != "tutti.workflow.v1") continue;
    if (!field->is_repeated()) {
      on_message(reflection->GetMessage(message, field));
      continue;
    }
    for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
      on_message(reflection->GetRepeatedMessage(message, field, i));
    }
  }
}

}  // namespace

bool HoldsField(const Message& message, const char* field_name) {
  bool found = false;
  ForEachField(
      message, [&](const FieldDescriptor& field) { found |= field.name() == field_name; },
      [&](const Message& inner) { found = found || HoldsField(inner, field_name); });
  return found;
}

void VisitSteps(const Message& message, const std::function<void(const tutti::workflow::v1::Step&)>& visit) {
  ForEachField(
      message, [](const FieldDescriptor&) {},
      [&](const Message& inner) {
        if (inner.GetDescriptor() == tutti::workflow::v1::Step::descriptor()) {
          visit(static_cast<const tutti::workflow::v1::Step&>(inner));
        }
        VisitSteps(inner, visit);
      });
}

}  // namespace tutti::engine
