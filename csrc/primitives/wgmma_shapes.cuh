// The shapes of wgmma: an instruction names every register of its accumulator, so each N needs a
// text of its own. Included by wgmma.cuh alone.
//
// OPENWEEK_NAMES_r are the operands of r accumulators, OPENWEEK_D_r the same as asm constraints.
// The inputs follow them: two descriptors, whether to accumulate, and, of types of 16 bits, whether
// A and B are transposed (MN-major).
#pragma once

#define OPENWEEK_NAMES_4 "%0, %1, %2, %3"
#define OPENWEEK_NAMES_8 OPENWEEK_NAMES_4 ", %4, %5, %6, %7"
#define OPENWEEK_NAMES_12 OPENWEEK_NAMES_8 ", %8, %9, %10, %11"
#define OPENWEEK_NAMES_16 OPENWEEK_NAMES_12 ", %12, %13, %14, %15"
#define OPENWEEK_NAMES_20 OPENWEEK_NAMES_16 ", %16, %17, %18, %19"
#define OPENWEEK_NAMES_24 OPENWEEK_NAMES_20 ", %20, %21, %22, %23"
#define OPENWEEK_NAMES_28 OPENWEEK_NAMES_24 ", %24, %25, %26, %27"
#define OPENWEEK_NAMES_32 OPENWEEK_NAMES_28 ", %28, %29, %30, %31"
#define OPENWEEK_NAMES_36 OPENWEEK_NAMES_32 ", %32, %33, %34, %35"
#define OPENWEEK_NAMES_40 OPENWEEK_NAMES_36 ", %36, %37, %38, %39"
#define OPENWEEK_NAMES_44 OPENWEEK_NAMES_40 ", %40, %41, %42, %43"
#define OPENWEEK_NAMES_48 OPENWEEK_NAMES_44 ", %44, %45, %46, %47"
#define OPENWEEK_NAMES_52 OPENWEEK_NAMES_48 ", %48, %49, %50, %51"
#define OPENWEEK_NAMES_56 OPENWEEK_NAMES_52 ", %52, %53, %54, %55"
#define OPENWEEK_NAMES_60 OPENWEEK_NAMES_56 ", %56, %57, %58, %59"
#define OPENWEEK_NAMES_64 OPENWEEK_NAMES_60 ", %60, %61, %62, %63"
#define OPENWEEK_NAMES_68 OPENWEEK_NAMES_64 ", %64, %65, %66, %67"
#define OPENWEEK_NAMES_72 OPENWEEK_NAMES_68 ", %68, %69, %70, %71"
#define OPENWEEK_NAMES_76 OPENWEEK_NAMES_72 ", %72, %73, %74, %75"
#define OPENWEEK_NAMES_80 OPENWEEK_NAMES_76 ", %76, %77, %78, %79"
#define OPENWEEK_NAMES_84 OPENWEEK_NAMES_80 ", %80, %81, %82, %83"
#define OPENWEEK_NAMES_88 OPENWEEK_NAMES_84 ", %84, %85, %86, %87"
#define OPENWEEK_NAMES_92 OPENWEEK_NAMES_88 ", %88, %89, %90, %91"
#define OPENWEEK_NAMES_96 OPENWEEK_NAMES_92 ", %92, %93, %94, %95"
#define OPENWEEK_NAMES_100 OPENWEEK_NAMES_96 ", %96, %97, %98, %99"
#define OPENWEEK_NAMES_104 OPENWEEK_NAMES_100 ", %100, %101, %102, %103"
#define OPENWEEK_NAMES_108 OPENWEEK_NAMES_104 ", %104, %105, %106, %107"
#define OPENWEEK_NAMES_112 OPENWEEK_NAMES_108 ", %108, %109, %110, %111"
#define OPENWEEK_NAMES_116 OPENWEEK_NAMES_112 ", %112, %113, %114, %115"
#define OPENWEEK_NAMES_120 OPENWEEK_NAMES_116 ", %116, %117, %118, %119"
#define OPENWEEK_NAMES_124 OPENWEEK_NAMES_120 ", %120, %121, %122, %123"
#define OPENWEEK_NAMES_128 OPENWEEK_NAMES_124 ", %124, %125, %126, %127"

#define OPENWEEK_D_FOUR(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define OPENWEEK_D_4 OPENWEEK_D_FOUR(0)
#define OPENWEEK_D_8 OPENWEEK_D_4, OPENWEEK_D_FOUR(4)
#define OPENWEEK_D_12 OPENWEEK_D_8, OPENWEEK_D_FOUR(8)
#define OPENWEEK_D_16 OPENWEEK_D_12, OPENWEEK_D_FOUR(12)
#define OPENWEEK_D_20 OPENWEEK_D_16, OPENWEEK_D_FOUR(16)
#define OPENWEEK_D_24 OPENWEEK_D_20, OPENWEEK_D_FOUR(20)
#define OPENWEEK_D_28 OPENWEEK_D_24, OPENWEEK_D_FOUR(24)
#define OPENWEEK_D_32 OPENWEEK_D_28, OPENWEEK_D_FOUR(28)
#define OPENWEEK_D_36 OPENWEEK_D_32, OPENWEEK_D_FOUR(32)
#define OPENWEEK_D_40 OPENWEEK_D_36, OPENWEEK_D_FOUR(36)
#define OPENWEEK_D_44 OPENWEEK_D_40, OPENWEEK_D_FOUR(40)
#define OPENWEEK_D_48 OPENWEEK_D_44, OPENWEEK_D_FOUR(44)
#define OPENWEEK_D_52 OPENWEEK_D_48, OPENWEEK_D_FOUR(48)
#define OPENWEEK_D_56 OPENWEEK_D_52, OPENWEEK_D_FOUR(52)
#define OPENWEEK_D_60 OPENWEEK_D_56, OPENWEEK_D_FOUR(56)
#define OPENWEEK_D_64 OPENWEEK_D_60, OPENWEEK_D_FOUR(60)
#define OPENWEEK_D_68 OPENWEEK_D_64, OPENWEEK_D_FOUR(64)
#define OPENWEEK_D_72 OPENWEEK_D_68, OPENWEEK_D_FOUR(68)
#define OPENWEEK_D_76 OPENWEEK_D_72, OPENWEEK_D_FOUR(72)
#define OPENWEEK_D_80 OPENWEEK_D_76, OPENWEEK_D_FOUR(76)
#define OPENWEEK_D_84 OPENWEEK_D_80, OPENWEEK_D_FOUR(80)
#define OPENWEEK_D_88 OPENWEEK_D_84, OPENWEEK_D_FOUR(84)
#define OPENWEEK_D_92 OPENWEEK_D_88, OPENWEEK_D_FOUR(88)
#define OPENWEEK_D_96 OPENWEEK_D_92, OPENWEEK_D_FOUR(92)
#define OPENWEEK_D_100 OPENWEEK_D_96, OPENWEEK_D_FOUR(96)
#define OPENWEEK_D_104 OPENWEEK_D_100, OPENWEEK_D_FOUR(100)
#define OPENWEEK_D_108 OPENWEEK_D_104, OPENWEEK_D_FOUR(104)
#define OPENWEEK_D_112 OPENWEEK_D_108, OPENWEEK_D_FOUR(108)
#define OPENWEEK_D_116 OPENWEEK_D_112, OPENWEEK_D_FOUR(112)
#define OPENWEEK_D_120 OPENWEEK_D_116, OPENWEEK_D_FOUR(116)
#define OPENWEEK_D_124 OPENWEEK_D_120, OPENWEEK_D_FOUR(120)
#define OPENWEEK_D_128 OPENWEEK_D_124, OPENWEEK_D_FOUR(124)

// Calls X(N, accumulators, the five inputs) for every shape.
#define OPENWEEK_WGMMA_SHAPES(X)                      \
  X(8, 4, "%4", "%5", "%6", "%7", "%8")               \
  X(16, 8, "%8", "%9", "%10", "%11", "%12")           \
  X(24, 12, "%12", "%13", "%14", "%15", "%16")        \
  X(32, 16, "%16", "%17", "%18", "%19", "%20")        \
  X(40, 20, "%20", "%21", "%22", "%23", "%24")        \
  X(48, 24, "%24", "%25", "%26", "%27", "%28")        \
  X(56, 28, "%28", "%29", "%30", "%31", "%32")        \
  X(64, 32, "%32", "%33", "%34", "%35", "%36")        \
  X(72, 36, "%36", "%37", "%38", "%39", "%40")        \
  X(80, 40, "%40", "%41", "%42", "%43", "%44")        \
  X(88, 44, "%44", "%45", "%46", "%47", "%48")        \
  X(96, 48, "%48", "%49", "%50", "%51", "%52")        \
  X(104, 52, "%52", "%53", "%54", "%55", "%56")       \
  X(112, 56, "%56", "%57", "%58", "%59", "%60")       \
  X(120, 60, "%60", "%61", "%62", "%63", "%64")       \
  X(128, 64, "%64", "%65", "%66", "%67", "%68")       \
  X(136, 68, "%68", "%69", "%70", "%71", "%72")       \
  X(144, 72, "%72", "%73", "%74", "%75", "%76")       \
  X(152, 76, "%76", "%77", "%78", "%79", "%80")       \
  X(160, 80, "%80", "%81", "%82", "%83", "%84")       \
  X(168, 84, "%84", "%85", "%86", "%87", "%88")       \
  X(176, 88, "%88", "%89", "%90", "%91", "%92")       \
  X(184, 92, "%92", "%93", "%94", "%95", "%96")       \
  X(192, 96, "%96", "%97", "%98", "%99", "%100")      \
  X(200, 100, "%100", "%101", "%102", "%103", "%104") \
  X(208, 104, "%104", "%105", "%106", "%107", "%108") \
  X(216, 108, "%108", "%109", "%110", "%111", "%112") \
  X(224, 112, "%112", "%113", "%114", "%115", "%116") \
  X(232, 116, "%116", "%117", "%118", "%119", "%120") \
  X(240, 120, "%120", "%121", "%122", "%123", "%124") \
  X(248, 124, "%124", "%125", "%126", "%127", "%128") \
  X(256, 128, "%128", "%129", "%130", "%131", "%132")
