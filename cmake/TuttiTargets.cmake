# tutti_library(NAME SOURCES… [DEPS …] [PRIVATE_DEPS …]): a static library with the house's warnings.
# tutti_executable(NAME …), tutti_test(NAME …): the same for programs and for tests, which run by ctest.
# tutti_service(NAME …): library tutti_<name>, and its program tutti-<name> from main.cc.
include(CMakeParseArguments)

function(_tutti_common target deps private_deps)
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(${target} PUBLIC ${deps} PRIVATE ${private_deps})
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers)
endfunction()

function(tutti_library name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES})
  _tutti_common(${name} "${A_DEPS}" "${A_PRIVATE_DEPS}")
endfunction()

function(tutti_executable name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  _tutti_common(${name} "${A_DEPS}" "")
  if(TUTTI_JEMALLOC)
    target_link_libraries(${name} PRIVATE -Wl,--no-as-needed ${TUTTI_JEMALLOC} -Wl,--as-needed)
  endif()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
endfunction()

function(tutti_test name)
  if(NOT TUTTI_TESTS)
    return()
  endif()
  cmake_parse_arguments(A "" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  _tutti_common(${name} "${A_DEPS};GTest::gmock;GTest::gtest_main" "")
  # What is tested is optimised, its test is not: a third less to compile.
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O0>)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS "${A_LABELS}"
    ENVIRONMENT "TUTTI_BIN=${PROJECT_BINARY_DIR}/bin;TUTTI_SOURCE=${PROJECT_SOURCE_DIR}")
endfunction()
