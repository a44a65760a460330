#include "cli/tint.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

namespace braid::tint_test {
namespace {

TEST(TintTest, ColourIsForTerminalsOnly) {
  unsetenv("NO_COLOR");
  const int file = open("/dev/null", O_WRONLY);
  EXPECT_FALSE(WantsColour(file));
  close(file);
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  if (terminal < 0) GTEST_SKIP() << "no pseudo-terminals here";
  EXPECT_TRUE(WantsColour(terminal));
  setenv("NO_COLOR", "", 1);
  EXPECT_FALSE(WantsColour(terminal));
  unsetenv("NO_COLOR");
  close(terminal);
}

}  // namespace
}  // namespace braid::tint_test
