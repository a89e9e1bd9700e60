# tutti_protos(): every .proto below proto/ becomes one object library each, so that a change of one contract rebuilds
# one file. Targets: tutti_proto (messages), tutti_grpc (stubs and services).
function(tutti_protos)
  file(GLOB_RECURSE protos RELATIVE ${PROJECT_SOURCE_DIR}/proto CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/proto/*.proto)
  set(out ${PROJECT_BINARY_DIR}/gen)
  file(MAKE_DIRECTORY ${out})
  set(messages "")
  set(stubs "")
  foreach(proto ${protos})
    string(REGEX REPLACE "\\.proto$" "" base ${proto})
    add_custom_command(
      OUTPUT ${out}/${base}.pb.cc ${out}/${base}.pb.h
      COMMAND protobuf::protoc -I${PROJECT_SOURCE_DIR}/proto --cpp_out=${out} ${PROJECT_SOURCE_DIR}/proto/${proto}
      DEPENDS ${PROJECT_SOURCE_DIR}/proto/${proto} VERBATIM)
    list(APPEND messages ${out}/${base}.pb.cc)
    file(STRINGS ${PROJECT_SOURCE_DIR}/proto/${proto} services REGEX "^service ")
    if(services)
      add_custom_command(
        OUTPUT ${out}/${base}.grpc.pb.cc ${out}/${base}.grpc.pb.h
        COMMAND protobuf::protoc -I${PROJECT_SOURCE_DIR}/proto --grpc_out=${out}
                --plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin> ${PROJECT_SOURCE_DIR}/proto/${proto}
        DEPENDS ${PROJECT_SOURCE_DIR}/proto/${proto} VERBATIM)
      list(APPEND stubs ${out}/${base}.grpc.pb.cc)
    endif()
  endforeach()
  add_library(tutti_proto STATIC ${messages})
  target_include_directories(tutti_proto SYSTEM PUBLIC ${out})
  target_link_libraries(tutti_proto PUBLIC protobuf::libprotobuf)
  target_compile_options(tutti_proto PRIVATE -w)
  add_library(tutti_grpc STATIC ${stubs})
  target_link_libraries(tutti_grpc PUBLIC tutti_proto gRPC::grpc++)
  target_compile_options(tutti_grpc PRIVATE -w)
endfunction()
